#include "text/chat/expression_parser.h"

#include <algorithm>
#include <charconv>

namespace dmc::text::chat {
namespace {

// Binary operators from loose to tight; those of one level group from the left.
const std::vector<std::vector<std::string_view>> kLevels = {
    {"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};

constexpr std::string_view kComparisons[] = {"==", "!=", "<=", ">=", "<", ">"};

}  // namespace

void ExpressionParser::count_node() {
  if (++nodes_ > kMostNodes) {
    tokens_.fail("an expression of more than " + std::to_string(kMostNodes) + " parts");
  }
}

ExpressionPtr ExpressionParser::parse(bool conditional) {
  if (depth_ == 0) nodes_ = 0;
  const Nesting nesting(&depth_, tokens_);
  return conditional ? parse_conditional() : parse_or();
}

ExpressionPtr ExpressionParser::parse_tuple(bool conditional) {
  const size_t line = tokens_.line();
  ExpressionPtr first = parse(conditional);
  if (!tokens_.is_operator(",")) return first;
  Expressions items;
  items.push_back(std::move(first));
  while (tokens_.skip_operator(",")) {
    if (tokens_.is_operator(")") || tokens_.is(TokenKind::kBlockEnd) ||
        tokens_.is(TokenKind::kVariableEnd)) {
      break;
    }
    items.push_back(parse(conditional));
  }
  return std::make_unique<ListDisplay>(line, std::move(items), /*is_tuple=*/true);
}

ExpressionPtr ExpressionParser::parse_conditional() {
  const size_t line = tokens_.line();
  ExpressionPtr value = parse_or();
  while (tokens_.skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise;
    if (tokens_.skip_name("else")) otherwise = parse();
    value = std::make_unique<Conditional>(line, std::move(condition), std::move(value),
                                          std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  while (tokens_.is_name("or")) {
    const size_t line = tokens_.take().line;
    left = std::make_unique<Logical>(line, /*is_and=*/false, std::move(left), parse_and());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  while (tokens_.is_name("and")) {
    const size_t line = tokens_.take().line;
    left = std::make_unique<Logical>(line, /*is_and=*/true, std::move(left), parse_not());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!tokens_.is_name("not")) return parse_comparison();
  const Nesting nesting(&depth_, tokens_);
  const size_t line = tokens_.take().line;
  return std::make_unique<Unary>(line, Unary::Kind::kNot, parse_not());
}

ExpressionPtr ExpressionParser::parse_comparison() {
  const size_t line = tokens_.line();
  ExpressionPtr first = parse_binary(0);
  Comparison::Links links;
  while (true) {
    std::string name;
    if (tokens_.is(TokenKind::kOperator) &&
        std::ranges::find(kComparisons, tokens_.now().text) != std::end(kComparisons)) {
      name = tokens_.take().text;
    } else if (tokens_.skip_name("in")) {
      name = "in";
    } else if (tokens_.is_name("not") && tokens_.after().kind == TokenKind::kName &&
               tokens_.after().text == "in") {
      tokens_.take();
      tokens_.take();
      name = "not in";
    } else {
      break;
    }
    links.emplace_back(find_operation(name), parse_binary(0));
  }
  if (links.empty()) return first;
  return std::make_unique<Comparison>(line, std::move(first), std::move(links));
}

ExpressionPtr ExpressionParser::parse_binary(size_t level) {
  if (level == kLevels.size()) return parse_unary(/*with_filters=*/true);
  ExpressionPtr left = parse_binary(level + 1);
  while (tokens_.is(TokenKind::kOperator)) {
    const auto& names = kLevels[level];
    if (std::ranges::find(names, tokens_.now().text) == names.end()) break;
    const Token token = tokens_.take();
    left = std::make_unique<Binary>(token.line, find_operation(token.text), std::move(left),
                                    parse_binary(level + 1));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(&depth_, tokens_);
  count_node();
  const size_t line = tokens_.line();
  ExpressionPtr value;
  if (tokens_.skip_operator("-")) {
    value = std::make_unique<Unary>(line, Unary::Kind::kMinus, parse_unary(false));
  } else if (tokens_.skip_operator("+")) {
    value = std::make_unique<Unary>(line, Unary::Kind::kPlus, parse_unary(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::parse_primary() {
  switch (tokens_.now().kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return parse_number();
    default:
      if (tokens_.skip_operator("(")) return parse_parentheses();
      if (tokens_.skip_operator("[")) return parse_list();
      if (tokens_.skip_operator("{")) return parse_dict();
      tokens_.fail("expected an expression");
  }
}

ExpressionPtr ExpressionParser::parse_name() {
  const Token token = tokens_.take();
  const std::pair<std::string_view, Value> kConstants[] = {
      {"true", Value(true)},   {"True", Value(true)},   {"false", Value(false)},
      {"False", Value(false)}, {"none", Value(None{})}, {"None", Value(None{})}};
  for (const auto& [name, constant] : kConstants) {
    if (token.text == name) return std::make_unique<Literal>(token.line, constant);
  }
  loop_names_ += token.text == "loop";
  return std::make_unique<Name>(token.line, token.text);
}

ExpressionPtr ExpressionParser::parse_string() {
  const size_t line = tokens_.line();
  std::string text;
  while (tokens_.is(TokenKind::kString)) text += tokens_.take().text;
  return std::make_unique<Literal>(line, Value(text));
}

ExpressionPtr ExpressionParser::parse_number() {
  const Token token = tokens_.take();
  const char *begin = token.text.data(), *end = begin + token.text.size();
  int64_t integer = 0;
  double real = 0;
  const auto [stop, error] = token.kind == TokenKind::kInteger
                                 ? std::from_chars(begin, end, integer)
                                 : std::from_chars(begin, end, real);
  if (error != std::errc() || stop != end) {
    throw SyntaxError{token.line, "number " + token.text + " is out of range"};
  }
  const Value value = token.kind == TokenKind::kInteger ? Value(integer) : Value(real);
  return std::make_unique<Literal>(token.line, value);
}

ExpressionPtr ExpressionParser::parse_parentheses() {
  const size_t line = tokens_.line();
  if (tokens_.skip_operator(")")) {
    return std::make_unique<ListDisplay>(line, Expressions(), /*is_tuple=*/true);
  }
  ExpressionPtr inside = parse_tuple();
  tokens_.expect_operator(")");
  return inside;
}

ExpressionPtr ExpressionParser::parse_list() {
  const size_t line = tokens_.line();
  Expressions items;
  while (!tokens_.skip_operator("]")) {
    if (!items.empty()) tokens_.expect_operator(",");
    if (tokens_.skip_operator("]")) break;
    items.push_back(parse());
  }
  return std::make_unique<ListDisplay>(line, std::move(items), /*is_tuple=*/false);
}

ExpressionPtr ExpressionParser::parse_dict() {
  const size_t line = tokens_.line();
  DictDisplay::Entries entries;
  while (!tokens_.skip_operator("}")) {
    if (!entries.empty()) tokens_.expect_operator(",");
    if (tokens_.skip_operator("}")) break;
    ExpressionPtr key = parse();
    tokens_.expect_operator(":");
    entries.emplace_back(std::move(key), parse());
  }
  return std::make_unique<DictDisplay>(line, std::move(entries));
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr object) {
  while (true) {
    count_node();
    const size_t line = tokens_.line();
    if (tokens_.skip_operator(".")) {
      object = parse_attribute(std::move(object));
    } else if (tokens_.skip_operator("[")) {
      object = parse_subscript(std::move(object));
    } else if (tokens_.skip_operator("(")) {
      object = std::make_unique<Call>(line, std::move(object), parse_arguments());
    } else {
      return object;
    }
  }
}

ExpressionPtr ExpressionParser::parse_attribute(ExpressionPtr object) {
  const size_t line = tokens_.line();
  if (tokens_.is(TokenKind::kInteger)) {
    return std::make_unique<Item>(line, std::move(object), parse_number());
  }
  const Token name = tokens_.expect(TokenKind::kName, "a name after '.'");
  return std::make_unique<Attribute>(line, std::move(object), name.text);
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const size_t line = tokens_.line();
  const auto part = [&]() -> ExpressionPtr {
    return tokens_.is_operator(":") || tokens_.is_operator("]") ? nullptr : parse();
  };
  ExpressionPtr first = part();
  if (!tokens_.is_operator(":")) {
    if (!first) tokens_.fail("expected an index");
    tokens_.expect_operator("]");
    return std::make_unique<Item>(line, std::move(object), std::move(first));
  }
  tokens_.take();
  ExpressionPtr last = part(), step;
  if (tokens_.skip_operator(":")) step = part();
  tokens_.expect_operator("]");
  return std::make_unique<Slice>(line, std::move(object), std::move(first), std::move(last),
                                 std::move(step));
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr operand) {
  while (true) {
    count_node();
    const size_t line = tokens_.line();
    if (tokens_.skip_operator("|")) {
      operand = parse_filter(std::move(operand));
    } else if (tokens_.skip_name("is")) {
      operand = parse_test(std::move(operand));
    } else if (tokens_.skip_operator("(")) {  // what a filter gave is called
      operand = std::make_unique<Call>(line, std::move(operand), parse_arguments());
    } else {
      return operand;
    }
  }
}

std::unique_ptr<const Filter> ExpressionParser::parse_filter(ExpressionPtr operand) {
  const Token name = tokens_.expect(TokenKind::kName, "the name of a filter");
  ArgumentList arguments;
  if (tokens_.skip_operator("(")) arguments = parse_arguments();
  return std::make_unique<Filter>(name.line, name.text, std::move(operand), std::move(arguments));
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr operand) {
  const bool negated = tokens_.skip_name("not");
  const Token name = tokens_.expect(TokenKind::kName, "the name of a test");
  ArgumentList arguments;
  const bool ends = tokens_.is_name("else") || tokens_.is_name("or") || tokens_.is_name("and") ||
                    tokens_.is_name("if") || tokens_.is_name("is") || tokens_.is_name("in") ||
                    tokens_.is_name("not");
  const bool starts = tokens_.is(TokenKind::kName) || tokens_.is(TokenKind::kString) ||
                      tokens_.is(TokenKind::kInteger) || tokens_.is(TokenKind::kFloat) ||
                      tokens_.is_operator("[") || tokens_.is_operator("{");
  if (tokens_.skip_operator("(")) {
    arguments = parse_arguments();
  } else if (starts && !ends) {  // one argument needs no parentheses: x is divisibleby 3
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  return std::make_unique<Test>(name.line, name.text, std::move(operand), std::move(arguments),
                                negated);
}

ArgumentList ExpressionParser::parse_arguments() {
  ArgumentList arguments;
  bool first = true;
  while (!tokens_.skip_operator(")")) {
    if (!first) tokens_.expect_operator(",");
    first = false;
    if (tokens_.skip_operator(")")) break;
    const bool named = tokens_.is(TokenKind::kName) &&
                       tokens_.after().kind == TokenKind::kOperator && tokens_.after().text == "=";
    if (named) {
      std::string name = tokens_.take().text;
      tokens_.take();
      arguments.named.emplace_back(std::move(name), parse());
    } else {
      if (!arguments.named.empty()) tokens_.fail("expected an argument with a name");
      arguments.positional.push_back(parse());
    }
  }
  return arguments;
}

}  // namespace dmc::text::chat

#include "text/chat/parser.h"

#include <algorithm>
#include <map>

#include "text/chat/expression_parser.h"

namespace dmc::text::chat {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Block parse() {
    Block block = parse_block({});
    if (!tokens_.is(TokenKind::kEnd)) tokens_.fail("expected the end of the template");
    return block;
  }

 private:
  using Ends = std::vector<std::string_view>;
  using StatementPtr = std::unique_ptr<const Statement>;
  using ParseTag = StatementPtr (Parser::*)(size_t line);
  static const std::map<std::string_view, ParseTag> kTags;

  // Statements up to a tag whose name is one of `ends`; that name is the next token then.
  Block parse_block(const Ends& ends) {
    const Nesting nesting(&depth_, tokens_);
    Block block;
    while (!tokens_.is(TokenKind::kEnd)) {
      const size_t line = tokens_.line();
      if (tokens_.is(TokenKind::kData)) {
        block.push_back(std::make_unique<Data>(line, tokens_.take().text));
      } else if (tokens_.is(TokenKind::kVariableBegin)) {
        tokens_.take();
        block.push_back(std::make_unique<Output>(line, expressions_.parse_tuple()));
        tokens_.expect(TokenKind::kVariableEnd, "}}");
      } else {
        tokens_.take();
        const bool is_end = tokens_.is(TokenKind::kName) &&
                            std::ranges::find(ends, tokens_.now().text) != ends.end();
        if (is_end) return block;
        block.push_back(parse_tag());
      }
    }
    if (!ends.empty()) tokens_.fail("expected {% " + std::string(ends.back()) + " %}");
    return block;
  }

  StatementPtr parse_tag() {
    const Token name = tokens_.expect(TokenKind::kName, "the name of a tag");
    const auto found = kTags.find(name.text);
    if (found == kTags.end()) {
      throw SyntaxError{name.line, "tag " + name.text + " is not known here"};
    }
    return (this->*found->second)(name.line);
  }

  void end_tag() { tokens_.expect(TokenKind::kBlockEnd, "%}"); }

  // The rest of a tag, and its body up to {% end %}.
  Block parse_body(std::string_view end) {
    end_tag();
    Block body = parse_block({end});
    tokens_.take();
    end_tag();
    return body;
  }

  StatementPtr parse_if(size_t line) {
    std::vector<If::Branch> branches;
    Block otherwise;
    std::string next = "elif";
    while (next == "elif") {
      ExpressionPtr condition = expressions_.parse_tuple(/*conditional=*/false);
      end_tag();
      branches.emplace_back(std::move(condition), parse_block({"elif", "else", "endif"}));
      next = tokens_.take().text;
    }
    if (next == "else") {
      otherwise = parse_body("endif");
    } else {
      end_tag();
    }
    return std::make_unique<If>(line, std::move(branches), std::move(otherwise));
  }

  std::vector<std::string> parse_targets() {
    const bool parentheses = tokens_.skip_operator("(");
    std::vector<std::string> names;
    do {
      names.push_back(tokens_.expect(TokenKind::kName, "a name").text);
    } while (tokens_.skip_operator(","));
    if (parentheses) tokens_.expect_operator(")");
    return names;
  }

  StatementPtr parse_for(size_t line) {
    std::vector<std::string> targets = parse_targets();
    if (!tokens_.skip_name("in")) tokens_.fail("expected 'in'");
    ExpressionPtr iterable = expressions_.parse_tuple(/*conditional=*/false), condition;
    if (tokens_.skip_name("if")) condition = expressions_.parse();
    end_tag();
    ++loops_;
    const int loop_names = expressions_.loop_names();
    Block body = parse_block({"else", "endfor"});
    --loops_;
    const bool uses_loop = expressions_.loop_names() > loop_names;
    Block otherwise;
    if (tokens_.take().text == "else") {
      otherwise = parse_body("endfor");
    } else {
      end_tag();
    }
    return std::make_unique<For>(line, std::move(targets), std::move(iterable),
                                 std::move(condition), std::move(body), std::move(otherwise),
                                 uses_loop);
  }

  template <Flow flow>
  StatementPtr parse_loop_control(size_t line) {
    if (loops_ == 0) throw SyntaxError{line, "break and continue belong into a loop"};
    end_tag();
    return std::make_unique<LoopControl>(line, flow);
  }

  StatementPtr parse_set(size_t line) {
    std::vector<std::string> targets = parse_targets();
    if (targets.size() == 1 && tokens_.skip_operator(".")) {
      std::string attribute = tokens_.expect(TokenKind::kName, "a name after '.'").text;
      tokens_.expect_operator("=");
      ExpressionPtr value = expressions_.parse_tuple();
      end_tag();
      return std::make_unique<SetAttribute>(line, std::move(targets[0]), std::move(attribute),
                                            std::move(value));
    }
    if (tokens_.skip_operator("=")) {
      ExpressionPtr value = expressions_.parse_tuple();
      end_tag();
      return std::make_unique<Set>(line, std::move(targets), std::move(value));
    }
    if (targets.size() != 1) tokens_.fail("expected '='");
    auto filters = parse_filters(tokens_.skip_operator("|"));
    return std::make_unique<SetBlock>(line, std::move(targets[0]), std::move(filters),
                                      parse_body("endset"));
  }

  StatementPtr parse_filter_block(size_t line) {
    auto filters = parse_filters(true);
    return std::make_unique<SetBlock>(line, "", std::move(filters), parse_body("endfilter"));
  }

  std::vector<std::unique_ptr<const Filter>> parse_filters(bool more) {
    std::vector<std::unique_ptr<const Filter>> filters;
    for (; more; more = tokens_.skip_operator("|")) {
      filters.push_back(expressions_.parse_filter(nullptr));
    }
    return filters;
  }

  StatementPtr parse_macro(size_t line) {
    std::string name = tokens_.expect(TokenKind::kName, "the name of a macro").text;
    tokens_.expect_operator("(");
    std::vector<Macro::Parameter> parameters;
    while (!tokens_.skip_operator(")")) {
      if (!parameters.empty()) tokens_.expect_operator(",");
      Macro::Parameter parameter{tokens_.expect(TokenKind::kName, "the name of an argument").text,
                                 nullptr};
      if (tokens_.skip_operator("=")) parameter.otherwise = expressions_.parse();
      parameters.push_back(std::move(parameter));
    }
    const int outer_loops = std::exchange(loops_, 0);
    Block body = parse_body("endmacro");
    loops_ = outer_loops;
    return std::make_unique<Macro>(line, std::move(name), std::move(parameters), std::move(body));
  }

  StatementPtr parse_generation(size_t line) {
    return std::make_unique<Section>(line, parse_body("endgeneration"));
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int depth_ = 0, loops_ = 0;
};

const std::map<std::string_view, Parser::ParseTag> Parser::kTags = {
    {"if", &Parser::parse_if},
    {"for", &Parser::parse_for},
    {"set", &Parser::parse_set},
    {"macro", &Parser::parse_macro},
    {"filter", &Parser::parse_filter_block},
    {"generation", &Parser::parse_generation},
    {"break", &Parser::parse_loop_control<Flow::kBreak>},
    {"continue", &Parser::parse_loop_control<Flow::kContinue>},
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(source).parse(); }

}  // namespace dmc::text::chat

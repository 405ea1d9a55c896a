// The grammar of expressions.
#pragma once

#include "text/chat/expressions.h"
#include "text/chat/token_stream.h"

namespace dmc::text::chat {

// Counts how deep the grammar has gone into itself, so that no template can exhaust the stack.
class Nesting {
 public:
  Nesting(int* depth, const TokenStream& tokens) : depth_(*depth) {
    if (++depth_ > kDeepest) throw SyntaxError{tokens.line(), "nested deeper than 100 levels"};
  }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  static constexpr int kDeepest = 100;
  int& depth_;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // An expression; with `conditional`, it may be "a if b else c".
  ExpressionPtr parse(bool conditional = true);
  // One expression, or several with commas between: a tuple.
  ExpressionPtr parse_tuple(bool conditional = true);
  // The "name(arguments)" of a filter; its operand is given.
  std::unique_ptr<const Filter> parse_filter(ExpressionPtr operand);

  int loop_names() const { return loop_names_; }  // how often `loop` was named so far

 private:
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparison();
  ExpressionPtr parse_binary(size_t level);
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_string();
  ExpressionPtr parse_number();
  ExpressionPtr parse_parentheses();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr object);
  ExpressionPtr parse_attribute(ExpressionPtr object);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr operand);
  ExpressionPtr parse_test(ExpressionPtr operand);
  ArgumentList parse_arguments();

  void count_node();

  // A chain like a + a + a makes a tree as deep as it is long, which must not exhaust the stack.
  static constexpr int kMostNodes = 3000;
  TokenStream& tokens_;
  int depth_ = 0, nodes_ = 0, loop_names_ = 0;
};

}  // namespace dmc::text::chat

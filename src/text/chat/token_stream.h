// A walk over tokens, for the parser.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat/lexer.h"

namespace dmc::text::chat {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[position_]; }
  const Token& after() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  size_t line() const { return now().line; }

  bool is(TokenKind kind) const { return now().kind == kind; }
  bool is_operator(std::string_view text) const {
    return is(TokenKind::kOperator) && now().text == text;
  }
  bool is_name(std::string_view text) const { return is(TokenKind::kName) && now().text == text; }

  Token take() {
    Token token = now();
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }
  bool skip_operator(std::string_view text) { return is_operator(text) && (take(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (take(), true); }

  Token expect(TokenKind kind, const char* what) {
    if (!is(kind)) fail(std::string("expected ") + what);
    return take();
  }
  void expect_operator(std::string_view text) {
    if (!skip_operator(text)) fail("expected '" + std::string(text) + "'");
  }

  [[noreturn]] void fail(const std::string& message) const {
    constexpr const char* kKinds[] = {
        "text", "{%", "%}", "{{", "}}", "", "", "", "a string", "", "the end of the template"};
    const auto kind = static_cast<size_t>(now().kind);
    const std::string found = *kKinds[kind] ? kKinds[kind] : "'" + now().text + "'";
    throw SyntaxError{line(), message + ", found " + found};
  }

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace dmc::text::chat

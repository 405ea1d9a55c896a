// Cuts a template into tokens, and applies the white space rules that chat templates are written
// for (trim_blocks and lstrip_blocks).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dmc::text::chat {

enum class TokenKind {
  kData,  // text outside of any tag
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kInteger,
  kFloat,
  kString,  // text: what the literal means
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  size_t line;  // from 1
};

struct SyntaxError {
  size_t line;
  std::string message;
};

// Throws SyntaxError. The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

}  // namespace dmc::text::chat

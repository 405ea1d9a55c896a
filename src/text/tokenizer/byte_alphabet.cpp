#include "text/tokenizer/byte_alphabet.h"

#include <unordered_map>

#include "base/utf8.h"

namespace dmc::text {
namespace {

std::unordered_map<char32_t, char> make_alphabet() {
  std::unordered_map<char32_t, char> byte_of;
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
    byte_of[itself ? b : next++] = static_cast<char>(b);
  }
  return byte_of;
}

}  // namespace

std::optional<std::string> bytes_of_token(std::string_view token) {
  static const std::unordered_map<char32_t, char> alphabet = make_alphabet();
  std::string bytes;
  while (!token.empty()) {
    const auto found = alphabet.find(take_code_point(&token));
    if (found == alphabet.end()) return std::nullopt;
    bytes += found->second;
  }
  return bytes;
}

}  // namespace dmc::text

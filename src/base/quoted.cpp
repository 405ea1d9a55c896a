#include "base/quoted.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>

#include "base/utf8.h"

namespace dmc {
namespace {

struct Range {
  char32_t first, last;
};
// Controls of both sets (U+009B begins an escape sequence, too), what ends lines elsewhere, what
// sets the direction of writing, and what has no width at all.
constexpr Range kHidden[] = {
    {0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},   {0x200b, 0x200f},
    {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe0fff}};

bool is_hidden(char32_t c) {
  return std::ranges::any_of(kHidden, [c](Range r) { return c >= r.first && c <= r.last; });
}

std::string escaped(char32_t c) {
  if (c == U'\n') return "\\n";
  if (c == U'\t') return "\\t";
  if (c == U'\r') return "\\r";
  char code[16];
  std::snprintf(code, sizeof code, c < 0x100 ? "\\x%02x" : "\\u%04x", static_cast<unsigned>(c));
  return code;
}

// The next character of *text as it is shown, taken off it.
std::string take_shown(std::string_view* text, bool within_quotes) {
  const size_t length = utf8_sequence_length(*text);
  if (length == 0) {
    const auto byte = static_cast<unsigned char>(text->front());
    text->remove_prefix(1);
    return escaped(byte);
  }
  const std::string_view character = text->substr(0, length);
  const char32_t c = take_code_point(text);
  if (within_quotes && c == U'"') return "\\\"";
  return is_hidden(c) ? escaped(c) : std::string(character);
}

std::string shown(std::string_view text, size_t most, bool within_quotes) {
  std::string out;
  for (size_t n = 0; !text.empty(); ++n) {
    if (n == most) return out + "...";
    out += take_shown(&text, within_quotes);
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text, size_t most) { return shown(text, most, false); }

std::string in_quotes(std::string_view text, size_t most) {
  return '"' + shown(text, most, true) + '"';
}

}  // namespace dmc

#include "server/json_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace dmc::server {
namespace {

constexpr float kLargest = 9999.0f;

void append_escaped(std::string* out, unsigned char byte) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      *out += "\\\"";
      return;
    case '\\':
      *out += "\\\\";
      return;
    case '\n':
      *out += "\\n";
      return;
    case '\t':
      *out += "\\t";
      return;
    case '\r':
      *out += "\\r";
      return;
    default:
      *out += "\\u00";
      *out += kHex[byte >> 4];
      *out += kHex[byte & 15];
  }
}

template <class Number>
void append_shortest(std::string* out, Number value) {
  char text[48];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  out->append(text, end);
}

}  // namespace

void append_json_string(std::string* out, std::string_view text) {
  *out += '"';
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7f) {
      append_escaped(out, byte);
    } else if (text.substr(i, 2) == "\xe2\x80" && i + 2 < text.size() &&
               (text[i + 2] == '\xa8' || text[i + 2] == '\xa9')) {
      *out += text[i + 2] == '\xa8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      *out += text[i];
    }
  }
  *out += '"';
}

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(&out, text);
  return out;
}

void append_json_number(std::string* out, float value) {
  if (std::isnan(value)) value = -kLargest;
  append_shortest(out, std::isinf(value) ? std::copysign(kLargest, value) : value);
}

std::string json_number(double value) {
  std::string out;
  append_shortest(&out, std::isfinite(value) ? value : 0.0);
  return out;
}

}  // namespace dmc::server

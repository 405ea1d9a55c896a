#include "base/utf8.h"

#include <algorithm>

namespace dmc {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

struct Lead {
  size_t length;                          // of the sequence; 0: not a lead byte
  unsigned char low = 0x80, high = 0xbf;  // allowed range of the second byte
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xc2) return {0};
  if (byte < 0xe0) return {2};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};  // no overlong forms
  if (byte == 0xed) return {3, 0x80, 0x9f};  // no surrogates
  if (byte < 0xf0) return {3};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4};
  if (byte == 0xf4) return {4, 0x80, 0x8f};  // nothing above U+10FFFF
  return {0};
}

// How many bytes at the start of `bytes` fit the sequence its first byte begins.
size_t fitting(std::string_view bytes, const Lead& lead) {
  size_t n = 1;
  while (n < lead.length && n < bytes.size()) {
    const auto byte = static_cast<unsigned char>(bytes[n]);
    const bool fits = n == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xc0) == 0x80;
    if (!fits) break;
    ++n;
  }
  return n;
}

}  // namespace

size_t utf8_sequence_length(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
  return lead.length > 0 && fitting(bytes, lead) == lead.length ? lead.length : 0;
}

char32_t take_code_point(std::string_view* text) {
  const auto first = static_cast<unsigned char>((*text)[0]);
  const size_t n = lead_of(first).length;
  char32_t c = n == 1 ? first : first & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) c = c << 6 | ((*text)[i] & 0x3f);
  text->remove_prefix(n);
  return c;
}

bool utf8_is_unfinished(std::string_view bytes) {
  if (bytes.empty()) return false;
  const Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
  return lead.length > bytes.size() && fitting(bytes, lead) == bytes.size();
}

bool utf8_is_valid(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t n = utf8_sequence_length(bytes);
    if (n == 0) return false;
    bytes.remove_prefix(n);
  }
  return true;
}

std::string utf8_repaired(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t n = utf8_sequence_length(bytes);
    if (n > 0) {
      out += bytes.substr(0, n);
      bytes.remove_prefix(n);
      continue;
    }
    out += kReplacement;
    const Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
    bytes.remove_prefix(lead.length == 0 ? 1 : fitting(bytes, lead));
  }
  return out;
}

void append_utf8(char32_t c, std::string* out) {
  const auto put = [&](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)),
        put(0x80 | (c & 0x3f));
  }
}

}  // namespace dmc

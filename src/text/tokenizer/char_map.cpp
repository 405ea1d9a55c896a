#include "text/tokenizer/char_map.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::text {
namespace {

uint32_t u32le(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A unit of the trie packs a label, a flag for "a text ends here" and the way to its children.
bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000ffu; }
uint32_t children_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200u) >> 6); }

}  // namespace

CharMap::CharMap(std::string_view blob, const std::string& origin) {
  if (blob.empty()) return;
  const size_t trie_size = blob.size() < 4 ? 0 : u32le(blob);
  if (trie_size == 0 || trie_size % 4 != 0 || trie_size > blob.size() - 4) {
    throw data_error(origin + ": its normalization table is cut off");
  }
  for (size_t at = 0; at < trie_size; at += 4) units_.push_back(u32le(blob.substr(4 + at)));
  replacements_ = blob.substr(4 + trie_size);
  if (!utf8_is_valid(replacements_)) {
    throw data_error(origin + ": its normalization table is not UTF-8");
  }
}

template <typename Fn>
void CharMap::for_each_prefix(std::string_view text, Fn fn) const {
  if (units_.empty()) return;
  uint32_t node = children_of(units_[0]);
  // A damaged trie may have a circle, which goes on as long as the text does.
  constexpr size_t kLongestKey = 256;
  for (size_t i = 0; i < std::min(text.size(), kLongestKey); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label_of(units_[node]) != byte) return;
    const uint32_t unit = units_[node];
    node ^= children_of(unit);
    if (!has_value(unit) || node >= units_.size()) continue;
    const size_t begin = value_of(units_[node]);
    const bool whole_characters = i + 1 == text.size() || (text[i + 1] & 0xc0) != 0x80;
    if (begin >= replacements_.size() || !whole_characters) continue;
    if (!fn(i + 1, std::string_view(replacements_.c_str() + begin))) return;
  }
}

CharMap::Prefix CharMap::longest_prefix(std::string_view text) const {
  const size_t character = utf8_sequence_length(text);
  Prefix longest{character, text.substr(0, character)};
  for_each_prefix(text, [&](size_t size, std::string_view replacement) {
    longest = {size, replacement};
    return true;
  });
  return longest;
}

std::optional<std::string_view> CharMap::shortest_prefix(std::string_view text) const {
  std::optional<std::string_view> found;
  for_each_prefix(text, [&](size_t, std::string_view replacement) {
    found = replacement;
    return false;
  });
  return found;
}

}  // namespace dmc::text

// The table of replacements that a sentencepiece model carries for its normalization.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::text {

// A double-array trie (as the Darts-clone library stores it) from texts to replacements.
class CharMap {
 public:
  CharMap() = default;  // replaces nothing
  // `blob`: u32le size of the trie in bytes, the trie, the replacements, each ended by a zero.
  // Error(kData) naming `origin` if that does not fit together.
  CharMap(std::string_view blob, const std::string& origin);

  struct Prefix {
    size_t size;  // bytes of the text that are replaced
    std::string_view replacement;
  };
  // The longest start of `text` (valid UTF-8, not empty) that the table replaces, else its first
  // character, which stays as it is.
  Prefix longest_prefix(std::string_view text) const;
  // The replacement of the shortest start of `text` that has one.
  std::optional<std::string_view> shortest_prefix(std::string_view text) const;

 private:
  // Calls fn(size, replacement) for every start of `text` in the table, the shortest first, until
  // it returns false.
  template <typename Fn>
  void for_each_prefix(std::string_view text, Fn fn) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace dmc::text

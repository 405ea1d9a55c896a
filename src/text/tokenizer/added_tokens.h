// Tokens that stand in a text by their own spelling: special tokens and words added to a
// vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/byte_trie.h"
#include "text/work.h"

namespace dmc::text {

struct AddedToken {
  std::string text;
  int32_t id = 0;
  bool special = false;      // a control token; a user's text should not contain it by accident
  bool normalized = false;   // looked for in the normalized text
  bool strip_left = false;   // swallows the white space before it
  bool strip_right = false;  // and after it
  bool single_word = false;  // only where no word character touches it
};

// Where tokens occur in a text. Where several begin at one place, the longest is meant.
class AddedTokenFinder {
 public:
  static constexpr size_t kLongestText = 1024;  // a search costs this much a byte at worst

  // Finds `spelling` (not empty, at most kLongestText bytes; the first token of a spelling counts).
  void add(std::string_view spelling, const AddedToken& token);

  struct Match {
    size_t begin, end;
    const AddedToken* token;
  };
  // Matches from left to right, not overlapping; one that `accept` refuses is text like any other.
  using Accept = std::function<bool(const Match&)>;
  std::vector<Match> find(std::string_view text, Work& work, const Accept& accept) const;

 private:
  ByteTrie spellings_;  // values are indices of tokens_
  std::vector<AddedToken> tokens_;
};

}  // namespace dmc::text

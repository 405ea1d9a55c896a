#include "io/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "io/unicode.h"
#include "io/utf8.h"

namespace dmc::io {
namespace {

uint64_t edge(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

// Start of the last character of `text`, which is not empty.
size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (text[at] & 0xc0) == 0x80) --at;
  return at;
}

char32_t code_point_at(std::string_view text, size_t at) {
  text.remove_prefix(at);
  return take_code_point(&text);
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  const bool before =
      begin > 0 && is_word(code_point_at(text, last_character(text.substr(0, begin))));
  return before || (end < text.size() && is_word(code_point_at(text, end)));
}

size_t skip_space_left(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t at = last_character(text.substr(0, begin));
    if (!is_white_space(code_point_at(text, at))) break;
    begin = at;
  }
  return std::max(begin, limit);
}

size_t skip_space_right(std::string_view text, size_t end) {
  std::string_view rest = text.substr(end);
  while (!rest.empty() && is_white_space(take_code_point(&rest))) end = text.size() - rest.size();
  return end;
}

}  // namespace

void AddedTokenFinder::add(std::string_view spelling, const AddedToken& token) {
  DMC_CHECK(!spelling.empty() && spelling.size() <= kLongestText);
  uint32_t node = 0;
  for (char byte : spelling) {
    const auto fresh = static_cast<uint32_t>(token_of_node_.size());
    const auto [found, inserted] = edges_.try_emplace(edge(node, byte), fresh);
    if (inserted) token_of_node_.push_back(kNone);
    node = found->second;
  }
  if (token_of_node_[node] != kNone) return;
  token_of_node_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, size_t* size) const {
  int32_t longest = kNone;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found = edges_.find(edge(node, text[i]));
    if (found == edges_.end()) break;
    node = found->second;
    if (token_of_node_[node] == kNone) continue;
    longest = token_of_node_[node];
    *size = i + 1;
  }
  return longest == kNone ? nullptr : &tokens_[static_cast<size_t>(longest)];
}

std::vector<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text,
                                                            const Accept& accept) const {
  std::vector<Match> matches;
  if (tokens_.empty()) return matches;
  size_t done = 0, size = 0;
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = longest_at(text.substr(at), &size);
    if (token == nullptr) {
      ++at;
      continue;
    }
    Match match{at, at + size, token};
    at = match.end;
    if (!accept(match)) continue;
    if (token->single_word && touches_word(text, match.begin, match.end)) continue;
    if (token->strip_left) match.begin = skip_space_left(text, match.begin, done);
    if (token->strip_right) match.end = skip_space_right(text, match.end);
    matches.push_back(match);
    at = done = match.end;
  }
  return matches;
}

}  // namespace dmc::io

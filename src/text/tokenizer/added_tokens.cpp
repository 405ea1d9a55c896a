#include "text/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

namespace dmc::text {
namespace {

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
  spellings_.add(spelling, static_cast<int32_t>(tokens_.size()));
  tokens_.push_back(token);
}

std::vector<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text, Work& work,
                                                            const Accept& accept) const {
  std::vector<Match> matches;
  if (tokens_.empty()) return matches;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    Match match{at, at, nullptr};
    work.tick(spellings_.for_each_prefix(text.substr(at), [&](size_t size, int32_t index) {
      match = {at, at + size, &tokens_[static_cast<size_t>(index)]};  // the longest comes last
    }));
    const AddedToken* token = match.token;
    at = token ? match.end : at + 1;
    if (!token || !accept(match)) continue;
    if (token->single_word && touches_word(text, match.begin, match.end)) continue;
    if (token->strip_left) match.begin = skip_space_left(text, match.begin, done);
    if (token->strip_right) match.end = skip_space_right(text, match.end);
    matches.push_back(match);
    at = done = match.end;
  }
  return matches;
}

}  // namespace dmc::text

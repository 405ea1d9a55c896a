#include "text/tokenizer/word_piece.h"

#include <algorithm>

namespace dmc::text {
namespace {

bool is_inside_character(std::string_view text, size_t at) {
  return at < text.size() && (text[at] & 0xc0) == 0x80;
}

}  // namespace

WordPieceModel::WordPieceModel(Vocabulary vocabulary, int32_t unknown, std::string prefix,
                               size_t longest_word)
    : vocabulary_(std::move(vocabulary)),
      unknown_(unknown),
      prefix_(std::move(prefix)),
      longest_word_(longest_word) {
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    longest_token_ = std::max(longest_token_, vocabulary_.text(id).size());
  }
}

void WordPieceModel::encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const {
  const auto is_start = [](char c) { return (c & 0xc0) != 0x80; };
  if (static_cast<size_t>(std::ranges::count_if(piece, is_start)) > longest_word_) {
    ids->push_back(unknown_);
    return;
  }
  const size_t first = ids->size();
  for (size_t begin = 0; begin < piece.size();) {
    const std::string marker = begin == 0 ? "" : prefix_;
    size_t end = std::min(piece.size(), begin + longest_token_);
    std::optional<int32_t> found;
    for (; end > begin && !found; --end) {
      if (is_inside_character(piece, end)) continue;
      work.tick(end - begin);
      found = vocabulary_.find(marker + std::string(piece.substr(begin, end - begin)));
      if (found) break;
    }
    if (!found) {
      ids->resize(first);
      ids->push_back(unknown_);
      return;
    }
    ids->push_back(*found);
    begin = end;
  }
}

}  // namespace dmc::text

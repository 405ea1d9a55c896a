#include "text/tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::text {

template <typename Score>
UnigramModel<Score>::UnigramModel(const std::vector<Token>& tokens, int32_t unknown,
                                  std::vector<int32_t> byte_tokens)
    : unknown_(unknown), byte_tokens_(std::move(byte_tokens)) {
  DMC_CHECK(byte_tokens_.empty() || byte_tokens_.size() == 256);
  constexpr Score kUnknownPenalty = 10;  // sentencepiece's
  Score least = 0;
  for (const Token& token : tokens) {
    const auto index = static_cast<size_t>(token.id);
    if (index >= score_.size()) score_.resize(index + 1);
    score_[index] = token.score;
    trie_.add(token.text, token.id);
    least = std::min(least, token.score);
  }
  unknown_score_ = least - kUnknownPenalty;
}

template <typename Score>
void UnigramModel<Score>::encode(std::string_view piece, Work& work,
                                 std::vector<int32_t>* ids) const {
  struct Node {  // the best row of tokens that ends here
    Score score = -std::numeric_limits<Score>::infinity();
    size_t begin = 0;  // of its last token
    int32_t id = 0;
  };
  std::vector<Node> nodes(piece.size() + 1);
  nodes[0].score = 0;
  size_t character = 1;
  for (size_t at = 0; at < piece.size(); at += character) {
    character = std::max<size_t>(1, utf8_sequence_length(piece.substr(at)));
    const auto offer = [&](size_t size, int32_t id, Score score) {
      Node& node = nodes[at + size];
      if (nodes[at].score + score > node.score) node = {nodes[at].score + score, at, id};
    };
    bool known = false;
    work.tick(trie_.for_each_prefix(piece.substr(at), [&](size_t size, int32_t id) {
      known |= size == character;
      offer(size, id, score_[static_cast<size_t>(id)]);
    }));
    if (!known) offer(character, unknown_, unknown_score_);
  }
  std::vector<size_t> ends;
  for (size_t end = piece.size(); end > 0; end = nodes[end].begin) ends.push_back(end);
  bool after_unknown = false;
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Node& node = nodes[*end];
    if (node.id != unknown_) {
      ids->push_back(node.id);
    } else if (!byte_tokens_.empty()) {
      for (char c : piece.substr(node.begin, *end - node.begin)) {
        ids->push_back(byte_tokens_[static_cast<unsigned char>(c)]);
      }
    } else if (!after_unknown) {
      ids->push_back(unknown_);
    }
    after_unknown = node.id == unknown_;
  }
}

template class UnigramModel<float>;
template class UnigramModel<double>;

}  // namespace dmc::text

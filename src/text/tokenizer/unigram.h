// The unigram language model of sentencepiece (Kudo 2018): the most probable row of tokens.
#pragma once

#include <vector>

#include "text/tokenizer/byte_trie.h"
#include "text/tokenizer/piece_model.h"

namespace dmc::text {

// Score: what log probabilities are added up in, float in sentencepiece, double in `tokenizers`.
// Where two rows of tokens are nearly as probable it decides.
template <typename Score>
class UnigramModel : public PieceModel {
 public:
  static constexpr size_t kLongestToken = 512;  // bytes; every token may be tried at every byte

  struct Token {
    std::string_view text;  // only read while the model is made
    int32_t id;
    Score score;  // log probability, finite
  };
  // A character that no token begins with becomes its 256 `byte_tokens` where they are given, else
  // `unknown`, once for a run of them.
  UnigramModel(const std::vector<Token>& tokens, int32_t unknown, std::vector<int32_t> byte_tokens);
  void encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const override;
  std::optional<int32_t> unknown() const override { return unknown_; }

 private:
  ByteTrie trie_;             // values are ids
  std::vector<Score> score_;  // by id
  Score unknown_score_;
  int32_t unknown_;
  std::vector<int32_t> byte_tokens_;  // by byte, or empty
};

}  // namespace dmc::text

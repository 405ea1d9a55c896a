// WordPiece, the model of BERT: the longest token first, later ones marked by a prefix.
#pragma once

#include <string>

#include "text/tokenizer/piece_model.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {

class WordPieceModel : public PieceModel {
 public:
  // A word with more than `longest_word` characters, or one that no tokens spell, is `unknown`.
  WordPieceModel(Vocabulary vocabulary, int32_t unknown, std::string prefix, size_t longest_word);
  void encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const override;
  std::optional<int32_t> unknown() const override { return unknown_; }

 private:
  Vocabulary vocabulary_;
  int32_t unknown_;
  std::string prefix_;
  size_t longest_word_;
  size_t longest_token_ = 0;  // bytes, so that a long word is not compared whole at every place
};

}  // namespace dmc::text

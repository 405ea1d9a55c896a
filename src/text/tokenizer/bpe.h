// Byte-pair encoding (Sennrich et al. 2016), over bytes as GPT-2 has it or over characters as
// sentencepiece has it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <unordered_map>

#include "text/tokenizer/piece_model.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {

// Which two adjacent tokens merge, in which order, and what they become.
class MergeTable {
 public:
  struct Merge {
    int32_t rank, result;  // the smallest rank merges first
  };
  void add(int32_t left, int32_t right, Merge merge);  // the first one of a pair counts
  const Merge* find(uint64_t pair) const;
  static uint64_t pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

 private:
  std::unordered_map<uint64_t, Merge> merges_;
};

// The merges of a vocabulary in which any two adjacent tokens merge whose joined text is a token;
// `rank_of` orders the results. `is_part` says which tokens take part.
template <typename IsPart, typename RankOf>
MergeTable merges_of_vocabulary(const Vocabulary& vocabulary, IsPart is_part, RankOf rank_of) {
  MergeTable merges;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view text = vocabulary.text(id);
    if (text.size() < 2 || !is_part(id) || vocabulary.find(text) != id) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = vocabulary.find(text.substr(0, cut));
      if (!left || !is_part(*left)) continue;
      const auto right = vocabulary.find(text.substr(cut));
      if (right && is_part(*right)) merges.add(*left, *right, {rank_of(id), id});
    }
  }
  return merges;
}

// Merges `symbols` in place, in O(n log n).
void apply_merges(const MergeTable& merges, std::vector<int32_t>* symbols);

struct BpeOptions {
  bool bytes = false;              // the first symbols are bytes, else characters
  bool ignore_merges = false;      // a piece that is a token becomes it at once (Llama 3)
  bool byte_fallback = false;      // an unknown character becomes its <0xNN> tokens
  bool fuse_unknown = false;       // one unknown token for a run of unknown characters
  std::optional<int32_t> unknown;  // without it, what is unknown is dropped, as elsewhere
};

class BpeModel : public PieceModel {
 public:
  // The texts of `vocabulary` are the bytes that the tokens stand for.
  BpeModel(Vocabulary vocabulary, MergeTable merges, const BpeOptions& options);
  void encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const override;
  std::optional<int32_t> unknown() const override { return options_.unknown; }

 private:
  std::vector<int32_t> first_symbols(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>* symbols) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_token_;  // of a byte by itself, or of <0xNN>; -1: none
};

// The byte of a token written <0xNN> (two hexadecimal digits, no more and no less).
std::optional<char> parse_byte_token(std::string_view token);

}  // namespace dmc::text

#include "text/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::text {
namespace {

// Symbols form a linked list, candidate pairs a heap ordered by (rank, position). A candidate whose
// symbols have changed since it was pushed is skipped.
class Merger {
 public:
  Merger(const MergeTable& merges, std::vector<int32_t>& symbols)
      : merges_(merges),
        symbols_(symbols),
        end_(static_cast<int32_t>(symbols.size())),
        next_(symbols.size()),
        previous_(symbols.size()) {
    for (int32_t i = 0; i < end_; ++i) {
      next_[index(i)] = i + 1;
      previous_[index(i)] = i - 1;
    }
  }

  void run() {
    for (int32_t i = 0; i + 1 < end_; ++i) push(i);
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      if (is_current(best)) merge(best);
    }
    std::erase(symbols_, kGone);
  }

 private:
  static constexpr int32_t kGone = -1;
  struct Candidate {
    int32_t rank, left;
    uint64_t pair;
    int32_t result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  static size_t index(int32_t i) { return static_cast<size_t>(i); }

  void push(int32_t left) {
    const int32_t right = left < 0 ? end_ : next_[index(left)];
    if (right >= end_) return;
    const uint64_t pair = MergeTable::pair(symbols_[index(left)], symbols_[index(right)]);
    if (const auto* merge = merges_.find(pair)) {
      heap_.push({merge->rank, left, pair, merge->result});
    }
  }

  bool is_current(const Candidate& candidate) const {
    const int32_t left = symbols_[index(candidate.left)], right = next_[index(candidate.left)];
    return left != kGone && right < end_ &&
           MergeTable::pair(left, symbols_[index(right)]) == candidate.pair;
  }

  void merge(const Candidate& best) {
    const int32_t right = next_[index(best.left)], after = next_[index(right)];
    symbols_[index(best.left)] = best.result;
    symbols_[index(right)] = kGone;
    next_[index(best.left)] = after;
    if (after < end_) previous_[index(after)] = best.left;
    push(best.left);
    push(previous_[index(best.left)]);
  }

  const MergeTable& merges_;
  std::vector<int32_t>& symbols_;
  const int32_t end_;
  std::vector<int32_t> next_, previous_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap_;
};

}  // namespace

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  merges_.try_emplace(pair(left, right), merge);
}

const MergeTable::Merge* MergeTable::find(uint64_t pair) const {
  const auto found = merges_.find(pair);
  return found == merges_.end() ? nullptr : &found->second;
}

void apply_merges(const MergeTable& merges, std::vector<int32_t>* symbols) {
  DMC_CHECK(symbols->size() < size_t{1} << 31);
  if (symbols->size() > 1) Merger(merges, *symbols).run();
}

std::optional<char> parse_byte_token(std::string_view token) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  const int high = digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

BpeModel::BpeModel(Vocabulary vocabulary, MergeTable merges, const BpeOptions& options)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), options_(options) {
  byte_token_.fill(-1);
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view text = vocabulary_.text(id);
    std::optional<char> byte;
    if (options_.bytes && text.size() == 1) byte = text[0];
    if (!options_.bytes) byte = parse_byte_token(text);
    if (byte) byte_token_[static_cast<unsigned char>(*byte)] = id;
  }
}

bool BpeModel::append_bytes(std::string_view character, std::vector<int32_t>* symbols) const {
  const auto token = [&](char c) { return byte_token_[static_cast<unsigned char>(c)]; };
  if (std::ranges::any_of(character, [&](char c) { return token(c) < 0; })) return false;
  for (char c : character) symbols->push_back(token(c));
  return true;
}

std::vector<int32_t> BpeModel::first_symbols(std::string_view piece) const {
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  bool after_unknown = false;
  while (!piece.empty()) {
    const size_t n = options_.bytes ? 1 : std::max<size_t>(1, utf8_sequence_length(piece));
    const std::string_view character = piece.substr(0, n);
    piece.remove_prefix(n);
    if (options_.bytes) {
      append_bytes(character, &symbols);
      continue;
    }
    if (const auto id = vocabulary_.find(character)) {
      symbols.push_back(*id);
      after_unknown = false;
    } else if (options_.byte_fallback && append_bytes(character, &symbols)) {
      after_unknown = false;
    } else if (options_.unknown) {
      if (!after_unknown || !options_.fuse_unknown) symbols.push_back(*options_.unknown);
      after_unknown = true;
    }
  }
  return symbols;
}

void BpeModel::encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const {
  if (options_.ignore_merges) {
    if (const auto whole = vocabulary_.find(piece)) {
      ids->push_back(*whole);
      return;
    }
  }
  work.tick(piece.size());
  std::vector<int32_t> symbols = first_symbols(piece);
  apply_merges(merges_, &symbols);
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

}  // namespace dmc::text

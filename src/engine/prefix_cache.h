// Snapshots of compressed caches, so that a prompt which begins like an earlier one does not take
// that beginning in again. Only for policies whose decisions depend on the prefix alone (dense,
// dmc, dms): there a fork of the snapshot holds, bit for bit, what the prompt would have left.
#pragma once

#include <list>
#include <span>
#include <vector>

#include "engine/model_runner.h"

namespace dmc::engine {

// That both begin with.
int64_t tokens_alike(std::span<const int32_t> a, std::span<const int32_t> b);

class PrefixCache {
 public:
  explicit PrefixCache(size_t capacity) : capacity_(capacity) {}

  // The longest snapshot whose tokens begin `tokens` and leave at least one of them: null if there
  // is none. Valid until it is dropped.
  const Sequence* find(std::span<const int32_t> tokens) const;
  // How many tokens at most `tokens` begins alike with a snapshot's.
  int64_t alike(std::span<const int32_t> tokens) const;
  void used(const Sequence* snapshot);  // it is now the one used last
  // Whether exactly these tokens are there.
  bool contains(std::span<const int32_t> tokens) const;
  // Keeps `sequence`, which has taken in `tokens`; what was used longest ago goes if there is no
  // room.
  void insert(std::vector<int32_t> tokens, Sequence sequence);
  // Lets the snapshot go that was used longest ago, but not `kept`; false if there is none.
  bool drop_oldest(const Sequence* kept = nullptr);

  bool enabled() const { return capacity_ > 0; }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::vector<int32_t> tokens;
    Sequence sequence;
  };
  size_t capacity_;
  std::list<Entry> entries_;  // the one used last first
};

}  // namespace dmc::engine

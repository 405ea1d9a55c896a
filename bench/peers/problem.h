// The attention of one decode step: one query token a layer, a cache full of slots. The numbers
// are the same for every program that is measured, so that their results can be compared too.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace dmc::peers {

struct Problem {
  int query_heads = 0, kv_heads = 0, head_dim = 0;
  int64_t slots = 0;  // tokens in the cache
  int layers = 0;     // independent ones, so that the data is beyond the processor's caches

  int group() const { return query_heads / kv_heads; }
  float scale() const;
};

enum class Row { kKey, kValue, kQuery };

// Writes the head_dim numbers of a key, a value (by KV head and slot) or a query (by query head,
// slot 0).
void fill_row(const Problem& problem, Row row, int layer, int head, int64_t slot, float* out);

// One program's way of solving it, its data laid out and ready.
class Attention {
 public:
  virtual ~Attention() = default;
  virtual void step() = 0;  // the attention of all layers, one after the other
  // [query_heads][head_dim] of the last step.
  virtual std::span<const float> output(int layer) const = 0;
};

}  // namespace dmc::peers

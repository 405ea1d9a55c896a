// How slots leave a stream: one at a time when there are too many, late when a token that was
// decided against leaves the window, or all at once when a prompt ends.
#pragma once

#include <span>
#include <vector>

#include "cache/kv_cache.h"
#include "cache/stream.h"

namespace dmc::cache {

// --- Policy::evict ---

// Takes the newest query's attention into the slots' statistics. weights: [group][closed + 1].
void observe(Stream& stream, int group, const float* weights);
// Gives the streams of one layer the mean of their attention. They hold the same tokens in the same
// order, because they have evicted as one from the start.
void share_attention(std::span<Stream* const> layer);
// Brings a stream back to its budget.
void evict(const CacheConfig& config, PagePool& pool, Stream& stream);

// --- Policy::late ---

// Closes the open slot, if there is one. `marked`: it will go.
void close_late(PagePool& pool, Stream& stream, bool marked);
// Drops the marked tokens that a query at `position` no longer sees: those more than `delay` back.
void expire(PagePool& pool, Stream& stream, int64_t position, int64_t delay);

// Marked tokens during a one-pass prefill: in the order of their positions, so that what a query
// sees of them is one run.
class PassingSlots {
 public:
  explicit PassingSlots(PagePool& pool) : pool_(pool) {}
  PassingSlots(const PassingSlots&) = delete;
  ~PassingSlots() { slots.clear(pool_); }

  SlotList slots;
  std::vector<int64_t> positions;
  std::vector<int64_t> from, to;  // by query token: it sees slots from..to-1

 private:
  PagePool& pool_;
};
// Moves the marked slots of a stream into `passing`.
void lift_marked(PagePool& pool, Stream& stream, PassingSlots& passing);
// Puts back what the last query still saw.
void return_marked(PagePool& pool, Stream& stream, const PassingSlots& passing);

// --- Policy::keep_of_prompt ---

// q: rows of [group][head_dim], `q_stride` floats apart, of the stream's `queries` newest tokens.
struct Observers {
  const float* q;
  int64_t queries, q_stride;
  int group;
  float scale;
};
void keep_of_prompt(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t budget,
                    const Observers& observers);

}  // namespace dmc::cache

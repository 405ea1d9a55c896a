// How slots leave a stream because there are too many: one at a time, or all at once when a prompt
// ends.
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

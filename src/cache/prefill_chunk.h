// One-pass prefill of one stream: what is computed of a chunk of tokens before it attends.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/eviction.h"
#include "cache/kv_cache.h"
#include "cache/stream.h"

namespace dmc::cache {

struct PooledChunk {
  std::vector<float> keys, values;  // [T][d]: every token's partial mean, keys rotated
  std::vector<float> masses;        // [T], of these
  std::vector<int64_t> visible;     // [T]: closed slots at that token

  float* key(int64_t token, int64_t d) { return keys.data() + token * d; }
  float* value(int64_t token, int64_t d) { return values.data() + token * d; }
};

// In all: the chunk's first token is at `position`, the stream is KV head `head` of its layer.

// Takes the tokens into the open slot and keeps every partial mean. A segment that ends inside the
// chunk needs nothing more: its slot is the mean at its last token.
void pool_chunk(const CacheConfig& config, OpenSlot& open, int64_t position, int head,
                const LayerTokens& tokens, PooledChunk& chunk);
// Writes the slots of the segments that end inside the chunk; the last one stays open.
void close_segments(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t position,
                    int head, const LayerTokens& tokens, PooledChunk& chunk);
// The same for a policy that evicts late: tokens it decided against pass by, seen for as long as
// they are in a query's window.
void pass_marked(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t position,
                 int head, const LayerTokens& tokens, PooledChunk& chunk, PassingSlots& passing);

}  // namespace dmc::cache

#include "cache/prefill_chunk.h"

#include <algorithm>

namespace dmc::cache {

void pool_chunk(const CacheConfig& config, OpenSlot& open, int64_t position, int head,
                const LayerTokens& tokens, PooledChunk& chunk) {
  const int64_t d = config.head_dim, heads = config.kv_heads;
  chunk.keys.resize(static_cast<size_t>(tokens.tokens * d));
  chunk.values.resize(chunk.keys.size());
  for (int64_t t = 0; t < tokens.tokens; ++t) {
    const int64_t row = t * heads + head;
    if (tokens.merge[row] == 0) open.clear();
    open.push(tokens.importance[row], tokens.k + row * d, tokens.v + row * d);
    open.pool(position + t, config.rope);
    std::copy_n(open.key(), d, chunk.key(t, d));
    std::copy_n(open.value(), d, chunk.value(t, d));
    chunk.masses.push_back(open.mass());
  }
}

void close_segments(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t position,
                    int head, const LayerTokens& tokens, PooledChunk& chunk) {
  const int64_t d = config.head_dim;
  const bool drops = config.policy != nullptr && config.policy->drops();
  for (int64_t t = 0; t < tokens.tokens; ++t) {
    if (t > 0 && tokens.merge[t * config.kv_heads + head] == 0) {
      stream.closed.append(pool, chunk.key(t - 1, d), chunk.value(t - 1, d),
                           chunk.masses[static_cast<size_t>(t - 1)]);
      if (drops) stream.stats.push_back({position + t - 1});
    }
    chunk.visible.push_back(stream.closed.size());
  }
  stream.open_stats = {position + tokens.tokens - 1};
}

void pass_marked(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t position,
                 int head, const LayerTokens& tokens, PooledChunk& chunk, PassingSlots& passing) {
  const int64_t d = config.head_dim;
  lift_marked(pool, stream, passing);
  int64_t from = 0;
  for (int64_t t = 0; t < tokens.tokens; ++t) {
    const bool marks = t > 0 && tokens.merge[t * config.kv_heads + head] != 0;
    if (marks) {
      passing.slots.append(pool, chunk.key(t - 1, d), chunk.value(t - 1, d),
                           chunk.masses[static_cast<size_t>(t - 1)]);
      passing.positions.push_back(position + t - 1);
    } else if (t > 0) {
      stream.closed.append(pool, chunk.key(t - 1, d), chunk.value(t - 1, d),
                           chunk.masses[static_cast<size_t>(t - 1)]);
      stream.stats.push_back({position + t - 1});
    }
    const int64_t oldest = position + t - config.delay;  // that token t still sees
    while (from < passing.slots.size() && passing.positions[static_cast<size_t>(from)] < oldest) {
      ++from;
    }
    chunk.visible.push_back(stream.closed.size());
    passing.from.push_back(from);
    passing.to.push_back(passing.slots.size());
  }
  stream.open_stats = {position + tokens.tokens - 1};
}

}  // namespace dmc::cache

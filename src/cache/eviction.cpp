#include "cache/eviction.h"

#include <algorithm>

#include "base/error.h"

namespace dmc::cache {
namespace {

// The last closed slot takes the place of the one that goes.
void drop_slot(PagePool& pool, Stream& stream, int64_t index) {
  stream.closed.remove(pool, index);
  stream.stats[static_cast<size_t>(index)] = stream.stats.back();
  stream.stats.pop_back();
}

}  // namespace

void observe(Stream& stream, int group, const float* weights) {
  const int64_t closed = stream.closed.size(), width = closed + 1;
  for (int64_t slot = 0; slot < width; ++slot) {
    policy::SlotStats& stats =
        slot < closed ? stream.stats[static_cast<size_t>(slot)] : stream.open_stats;
    stats.attention = 0.0f;
    for (int g = 0; g < group; ++g) {
      stats.attention += weights[g * width + slot] / static_cast<float>(group);
    }
    stats.total += stats.attention;
  }
}

void share_attention(std::span<Stream* const> layer) {
  for (size_t slot = 0; slot < layer[0]->stats.size(); ++slot) {
    float mean = 0.0f;
    for (const Stream* stream : layer) {
      mean += stream->stats[slot].attention / static_cast<float>(layer.size());
    }
    for (Stream* stream : layer) stream->stats[slot].attention = mean;
  }
}

void evict(const CacheConfig& config, PagePool& pool, Stream& stream) {
  const int64_t newest = stream.open_stats.position, budget = config.budget_at(newest + 1);
  const auto worth = [&](const policy::SlotStats& slot) {
    return policy::slot_worth(config.policy->evict, slot, newest, budget);
  };
  while (stream.closed.size() + 1 > budget) {
    const auto victim = std::ranges::min_element(stream.stats, {}, worth);
    DMC_CHECK(victim != stream.stats.end());
    drop_slot(pool, stream, victim - stream.stats.begin());
  }
}

}  // namespace dmc::cache

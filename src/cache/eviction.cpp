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

void close_late(PagePool& pool, Stream& stream, bool marked) {
  if (stream.open.empty()) return;
  stream.closed.append(pool, stream.open.key(), stream.open.value(), stream.open.mass());
  stream.open.clear();
  stream.stats.push_back(stream.open_stats);
  if (marked) stream.marks.push_back({stream.open_stats.position, stream.closed.size() - 1});
}

void expire(PagePool& pool, Stream& stream, int64_t position, int64_t delay) {
  while (!stream.marks.empty() && position - stream.marks.front().position > delay) {
    const int64_t place = stream.marks.front().slot;
    stream.marks.pop_front();
    const int64_t moved = stream.stats.back().position;  // the last slot, which fills the gap
    drop_slot(pool, stream, place);
    const auto mark = std::ranges::lower_bound(stream.marks, moved, {}, &Mark::position);
    if (mark != stream.marks.end() && mark->position == moved) mark->slot = place;
  }
}

void lift_marked(PagePool& pool, Stream& stream, PassingSlots& passing) {
  if (stream.marks.empty()) return;
  std::vector<bool> goes(stream.stats.size());
  for (const Mark& mark : stream.marks) {
    passing.slots.append_copy(pool, stream.closed, mark.slot);
    passing.positions.push_back(mark.position);
    goes[static_cast<size_t>(mark.slot)] = true;
  }
  std::vector<size_t> stays;
  std::vector<policy::SlotStats> stats;
  for (size_t i = 0; i < goes.size(); ++i) {
    if (goes[i]) continue;
    stays.push_back(i);
    stats.push_back(stream.stats[i]);
  }
  stream.closed.keep(pool, stays);
  stream.stats = std::move(stats);
  stream.marks.clear();
}

void return_marked(PagePool& pool, Stream& stream, const PassingSlots& passing) {
  for (int64_t i = passing.from.back(); i < passing.slots.size(); ++i) {
    const int64_t position = passing.positions[static_cast<size_t>(i)];
    stream.marks.push_back({position, stream.closed.size()});
    stream.closed.append_copy(pool, passing.slots, i);
    stream.stats.push_back({position});
  }
}

}  // namespace dmc::cache

// Policies that evict (policy/eviction.h): after a token's attention a stream that is over its
// budget drops slots. As cache/eviction.h.
//
//   take_step_token    opens the statistics of a token's slot (late.h)
//   observe            what its query gave the slots, for rules that look at that
//   share_attention    over the heads of a layer that evict as one
//   evict              down to the budget
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cuda/attention/slot_attention.h"
#include "kernels/cuda/cache/late.h"

namespace dmc::kernels::cuda {

struct EvictionSpec {
  policy::Eviction rule = policy::Eviction::kNone;
  policy::Budget budget = {};
  bool layer_wide = false;  // as policy::Policy
};

// What a layer's step leaves for eviction: one token of each sequence of a batch.
struct EvictionStep {
  EvictionSpec spec;
  const float* q;  // [batch][kv_heads][group][head_dim], rotated
  float scale;
  const int32_t* positions;  // [batch]
  float* scores;             // [items][Streams::stats_capacity], for the launch to work in
};

template <DType kType, class Team>
DMC_DEVICE void observe(const StreamSlots& of, const GroupQueries& queries, float* scores) {
  policy::SlotStats* const stats = of.streams.stats_of(of.stream, of.pool.page_slots);
  const int32_t count = of.closed() + 1;
  for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) {
    stats[slot].attention = 0.0f;
  }
  add_mean_weights<kType, Team>(of, count, queries, scores,
                                [&](int32_t slot) -> float& { return stats[slot].attention; });
  for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) {
    stats[slot].total += static_cast<double>(stats[slot].attention);
  }
}

// Gives the streams of one sequence's layer the mean of their attention. They hold the same tokens
// in the same order, because they have evicted as one from the start.
template <class Team>
DMC_DEVICE void share_attention(const Streams& streams, int page_slots, const Batch& batch,
                                int layer, int row) {
  const int heads = batch.kv_heads;
  const int64_t first = batch.stream(layer, row * heads);
  for (int32_t slot = Team::lane(); slot < streams.closed[first]; slot += Team::size()) {
    float mean = 0.0f;
    for (int head = 0; head < heads; ++head) {
      mean +=
          streams.stats_of(first + head, page_slots)[slot].attention / static_cast<float>(heads);
    }
    for (int head = 0; head < heads; ++head) {
      streams.stats_of(first + head, page_slots)[slot].attention = mean;
    }
  }
}

// Brings a stream whose newest token is at `newest` back to its budget, or as near as it can where
// there is no page for the copy of a shared one.
template <DType kType, class Team>
DMC_DEVICE void evict(const StreamSlots& of, const PageStack& stack, const EvictionSpec& spec,
                      int32_t newest) {
  const int64_t budget = spec.budget.at(int64_t{newest} + 1);
  const policy::SlotStats* const stats = of.streams.stats_of(of.stream, of.pool.page_slots);
  while (of.closed() + 1 > budget) {
    constexpr Ranked kNone{std::numeric_limits<double>::infinity(), INT32_MAX};
    Ranked least = kNone;
    for (int32_t slot = Team::lane(); slot < of.closed(); slot += Team::size()) {
      const Ranked here{policy::slot_worth(spec.rule, stats[slot], newest, budget), slot};
      if (slot < Team::size() || here.before(least)) least = here;
    }
    const int32_t victim = Team::least(least).index;
    if (!drop_slot<kType, Team>(of.pool, stack, of.streams, of.stream, of.head_dim, victim)) return;
  }
}

}  // namespace dmc::kernels::cuda

// How much attention each slot of a stream gets from a group of queries, for policies that choose
// by it. The attention kernels do not say: they never hold a whole row of weights. So scores are
// computed a second time, by a team of lanes that have a slot each.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/cache/pages.h"
#include "kernels/cuda/lanes/packet.h"

namespace dmc::kernels::cuda {

// Queries of one KV head's group for one token: q [group][head_dim], rotated.
struct GroupQueries {
  const float* q;
  int group;
  float scale;
};

// The stream's closed slots and, behind them, its open one.
struct StreamSlots {
  const PagePool& pool;
  const Streams& streams;
  int64_t stream;
  int head_dim;

  DMC_HOST_DEVICE int32_t closed() const { return streams.closed[stream]; }
};

// Product of a query and a slot's key.
template <DType kType, class Team>
DMC_DEVICE float key_product(const StreamSlots& of, int32_t slot, const float* q) {
  float product = 0.0f;
  if (slot == of.closed()) {
    const float* const key = of.streams.open_key(of.stream, of.head_dim);
    for (int i = 0; i < of.head_dim; ++i) product += q[i] * key[i];
    return product;
  }
  const int P = of.pool.page_slots, row = slot % P;
  const int64_t row_bytes = int64_t{of.head_dim} * slot_number_bytes(kType);
  const int32_t page = of.streams.table(of.stream)[slot / P];
  const std::byte* const at = of.pool.memory + page * of.pool.page_bytes;
  const auto* const packets = reinterpret_cast<const Packet*>(at + row * row_bytes);
  constexpr int kNumbers = kPacketNumbers<kType>;
  for (int n = 0; n < of.head_dim / kNumbers; ++n) {
    const Packet packet = packets[n];
    DMC_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      product += q[n * kNumbers + i] * number_of<kType, Team>(packet, i);
    }
  }
  if constexpr (is_scaled(kType)) {
    product *= reinterpret_cast<const float*>(at + 2 * P * row_bytes)[row];
  }
  return product;
}

// weight(slot) += what the queries give slots 0..count-1, each its softmax weight, averaged over
// the group. Every slot is one lane's from first to last. scores: [count] of the team's own.
template <DType kType, class Team, class Weight>
DMC_DEVICE void add_mean_weights(const StreamSlots& of, int32_t count, const GroupQueries& queries,
                                 float* scores, Weight&& weight) {
  for (int g = 0; g < queries.group; ++g) {
    const float* const q = queries.q + int64_t{g} * of.head_dim;
    float max = -INFINITY, sum = 0.0f;
    for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) {
      scores[slot] = key_product<kType, Team>(of, slot, q) * queries.scale;
      max = fmaxf(max, scores[slot]);
    }
    max = Team::max(max);
    for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) {
      scores[slot] = expf(scores[slot] - max);
      sum += scores[slot];
    }
    sum = Team::sum(sum) * static_cast<float>(queries.group);
    for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) {
      weight(slot) += scores[slot] / sum;
    }
  }
}

}  // namespace dmc::kernels::cuda

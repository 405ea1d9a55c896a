// Append or merge: how a stream takes a token in. The same computation as cache::OpenSlot and
// KvCache, written for a team of lanes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/cache/pages.h"
#include "kernels/cuda/lanes/team.h"

namespace dmc::kernels::cuda {

// kernels::round_row for the types with a scale, on device.
template <DType kType, class Team>
DMC_DEVICE void round_scaled(const float* from, int dim, uint8_t* to, float* scale) {
  float largest = 0.0f;
  for (int i = Team::lane(); i < dim; i += Team::size()) {
    const float x = fabsf(from[i]);
    largest = fmaxf(largest, x < INFINITY ? x : INFINITY);  // NaN too
  }
  largest = Team::max(largest);
  const bool finite = largest < INFINITY;
  if (Team::lane() == 0) *scale = finite ? largest / largest_scaled(kType) : NAN;
  const float factor = finite && largest > 0.0f ? largest_scaled(kType) / largest : 0.0f;
  for (int i = Team::lane(); i < dim; i += Team::size()) {
    const float x = factor > 0.0f ? from[i] * factor : 0.0f;
    if constexpr (kType == DType::kI8) {
      to[i] = static_cast<uint8_t>(static_cast<int8_t>(rintf(x)));
    } else {
      to[i] = Team::to_f8(x);
    }
  }
}

// kernels::round_row, on device.
template <DType kType, class Team>
DMC_DEVICE void round_row(const float* from, int dim, std::byte* to, float* scale) {
  if constexpr (is_scaled(kType)) {
    round_scaled<kType, Team>(from, dim, reinterpret_cast<uint8_t*>(to), scale);
  } else {
    for (int i = Team::lane(); i < dim; i += Team::size()) {
      if constexpr (kType == DType::kF32) {
        reinterpret_cast<float*>(to)[i] = from[i];
      } else if constexpr (kType == DType::kBF16) {
        reinterpret_cast<uint16_t*>(to)[i] = Team::to_bf16(from[i]);
      } else {
        reinterpret_cast<uint16_t*>(to)[i] = Team::to_f16(clamp_to_f16(from[i]));
      }
    }
  }
}

// Writes a pair into row `row` of page `page` (slot_page.h).
template <DType kType, class Team>
DMC_DEVICE void write_slot(const PagePool& pool, int32_t page, int row, int head_dim,
                           const float* key, const float* value) {
  const int64_t row_bytes = int64_t{head_dim} * slot_number_bytes(kType);
  std::byte* const at = pool.memory + page * pool.page_bytes;
  auto* const scales = reinterpret_cast<float*>(at + 2 * pool.page_slots * row_bytes) + row;
  round_row<kType, Team>(key, head_dim, at + row * row_bytes, scales);
  round_row<kType, Team>(value, head_dim, at + (pool.page_slots + row) * row_bytes,
                         scales + pool.page_slots);
}

// Writes a closed slot behind the others; returns whether there was a page for it. Without a page
// the slot is dropped and counted: the host keeps enough pages free that this does not happen, and
// gives the step up if it does.
template <DType kType, class Team>
DMC_DEVICE bool append_closed(const PagePool& pool, const PageStack& stack, const Streams& streams,
                              int64_t stream, int head_dim, const float* key, const float* value) {
  const int32_t closed = streams.closed[stream];
  const int row = closed % pool.page_slots, number = closed / pool.page_slots;
  int32_t* const entry = streams.table(stream) + number;
  int32_t there = 1;  // a page for it
  if (row != 0) {
    there = own_page<Team>(pool, stack, streams, stream, number) ? 1 : 0;
  } else if (Team::lane() == 0) {
    there = number < streams.max_pages && take_pages<Team>(stack, 1, entry) ? 1 : 0;
  }
  there = Team::of_first(there);
  if (there != 0) write_slot<kType, Team>(pool, *entry, row, head_dim, key, value);
  Team::sync();  // everybody has read `closed`
  if (Team::lane() == 0) {
    if (there == 0) {
      Team::add(stack.refused, 1);
    } else {
      streams.closed[stream] = closed + 1;
    }
  }
  return there != 0;
}

// What a stream is given: its token's raw key (before rotary, decision channel zeroed) and value,
// [head_dim] each.
struct TokenPair {
  const float *key, *value;
  float weight;
  bool merge;
  const float *cos, *sin;  // of the token's position, [head_dim / 2]; null: not rotated
  int32_t position = 0;    // only for policies that evict late
};

// Puts the token into the ring (window > 0) or the running mean of its segment (window 0), as
// OpenSlot::push. Returns how many entries there are.
template <class Team>
DMC_DEVICE int push_entry(const Streams& streams, int64_t stream, int head_dim, bool first,
                          const TokenPair& token) {
  const int capacity = streams.capacity(), width = 2 * head_dim;
  float* const weights = streams.open_weights + stream * capacity;
  float* const ring = streams.open_pairs + (stream * (capacity + 1) + 1) * width;
  int count = first ? 0 : streams.open_count[stream];
  int head = first ? 0 : streams.open_head[stream];
  const bool into_mean = streams.window == 0 && count == 1;
  const bool full = count == capacity;
  const int place = into_mean ? 0 : (head + count) % capacity;  // when full: of the oldest
  const float total = into_mean ? weights[0] + token.weight : token.weight;
  const float share = into_mean ? token.weight / total : 1.0f;
  float* const entry = ring + static_cast<int64_t>(place) * width;
  for (int i = Team::lane(); i < width; i += Team::size()) {
    const float x = i < head_dim ? token.key[i] : token.value[i - head_dim];
    entry[i] = into_mean ? entry[i] + share * (x - entry[i]) : x;
  }
  if (!into_mean && full) head = (head + 1) % capacity;
  if (!into_mean && !full) ++count;
  Team::sync();  // everybody has read the counters
  if (Team::lane() == 0) {
    weights[place] = total;
    streams.open_count[stream] = count;
    streams.open_head[stream] = head;
  }
  Team::sync();
  return count;
}

// The weighted mean of the first `count` places of the ring, its key rotated, as OpenSlot::pool. (A
// ring that is not full starts at place 0, so these are its entries, whatever their order.)
template <class Team>
DMC_DEVICE void pool_entries(const Streams& streams, int64_t stream, int head_dim, int count,
                             const float* cos, const float* sin) {
  const int capacity = streams.capacity(), width = 2 * head_dim;
  const float* const weights = streams.open_weights + stream * capacity;
  float* const pooled = streams.open_pairs + stream * (capacity + 1) * width;
  const float* const ring = pooled + width;
  float total = 0.0f;
  for (int n = 0; n < count; ++n) total += weights[n];
  for (int i = Team::lane(); i < width; i += Team::size()) {
    float sum = 0.0f;
    for (int n = 0; n < count; ++n) sum += weights[n] / total * ring[int64_t{n} * width + i];
    pooled[i] = sum;
  }
  Team::sync();
  if (cos == nullptr) return;
  const int half = head_dim / 2;
  for (int i = Team::lane(); i < half; i += Team::size()) {
    const float low = pooled[i], high = pooled[half + i];
    pooled[i] = low * cos[i] - high * sin[i];
    pooled[half + i] = high * cos[i] + low * sin[i];
  }
  Team::sync();
}

// The whole of it: the open slot is closed unless the token merges into it; the token goes into the
// open slot; its mean is computed anew.
template <DType kType, class Team>
DMC_DEVICE void take_token(const PagePool& pool, const PageStack& stack, const Streams& streams,
                           int64_t stream, int head_dim, const TokenPair& token) {
  const bool empty = streams.open_count[stream] == 0;
  if (!empty && !token.merge) {
    append_closed<kType, Team>(pool, stack, streams, stream, head_dim,
                               streams.open_key(stream, head_dim),
                               streams.open_value(stream, head_dim));
    Team::sync();  // the pooled pair is about to be overwritten
  }
  const int count = push_entry<Team>(streams, stream, head_dim, empty || !token.merge, token);
  pool_entries<Team>(streams, stream, head_dim, count, token.cos, token.sin);
}

}  // namespace dmc::kernels::cuda

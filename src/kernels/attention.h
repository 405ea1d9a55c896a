// Attention over a stream's slots, for decoding and for one-pass compressed prefill.
// Framework-free: plain pointers and PODs. Everything is a merge of partial softmax states, so the
// order in which slots are visited is free and work can be split anywhere.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/slot_page.h"

namespace dmc::kernels {

// A run of closed slots of one stream: slots first..last-1 of those its page table lists.
struct SlotRange {
  const int32_t* pages = nullptr;
  int64_t first = 0, last = 0;
  // If not null, the score of query g and slot s goes to scores[g * score_stride + s].
  float* scores = nullptr;
  int64_t score_stride = 0;
};

// Partial softmax attention of one query: sum = Σ exp(s - max), out = Σ exp(s - max) v.
struct AttnState {
  float max, sum;
};

// One stream of a decode step. q, out: [group][head_dim]; the open slot always counts.
struct DecodeItem {
  const int32_t* pages;
  int64_t closed_slots;
  const float *open_key, *open_value;
  const float* q;
  float* out;
  // If not null, the softmax weights: [group][closed_slots + 1], that of the open slot last.
  float* weights = nullptr;
  float open_mass = 0.0f;  // added to the open slot's scores
};

// out = softmax(scale q K) V over each item's slots. `group` query heads share a stream. The result
// does not depend on the number of threads or on the other items.
void decode_attention(const PoolView& pool, std::span<const DecodeItem> items, int group,
                      float scale);

// Slots that a query loses sight of again: token t sees from[t]..to[t]-1, both never falling.
struct PassingView {
  const int32_t* pages = nullptr;  // null: there are none
  const int64_t *from = nullptr, *to = nullptr;
};

// One stream of a prefill. Query t of head g is q + t * q_stride + g * head_dim, and the same for
// out. It sees the closed slots 0..visible[t]-1 and its own pair own_key, own_value [t][head_dim].
struct PrefillItem {
  const int32_t* pages;
  int64_t tokens;
  const int64_t* visible;  // [tokens], never falling
  const float *own_key, *own_value;
  const float* q;
  float* out;
  int64_t q_stride;  // floats between tokens, for q and out
  PassingView passing = {};
  const float* own_mass = nullptr;  // [tokens], added to the scores of the own pair; null: zeros
};

void prefill_attention(const PoolView& pool, std::span<const PrefillItem> items, int group,
                       float scale);

}  // namespace dmc::kernels

// From projected rows [q | k | v] to what the cache takes: head norms, the decision, the decision
// channel zeroed, queries rotated. As Decoder::split_heads with the policy "dmc", "dense" or
// "forced".
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/lanes/portable.h"
#include "policy/forced.h"
#include "policy/learned.h"

namespace dmc::kernels::cuda {

// The channel that decides, the last one: of each head of q and k, which attention sees as 0 before
// the rotary embedding; or of the first query head of each group, as 0 behind it, too.
enum class DecisionChannel : uint8_t { kNone, kQueriesAndKeys, kFirstQueries };

// How a layer's heads are read. Group g of a KV head: query heads head * group .. + group - 1.
struct HeadsSpec {
  int kv_heads, group, head_dim;
  DecisionChannel channel;  // which the model decides by, and attention does not see
  bool decides;             // merge as it says; else every token appends
  policy::LearnedConstants constants;
  const float *q_norm, *k_norm;  // RMS norm of each head, [head_dim]; null: none
  float norm_eps;
  float bias = 0.0f;  // of decisions: above 0, more tokens merge
  // Biases of the rows in its place, `bias_stride` apart (0: one for all rows); null: none.
  const float* biases = nullptr;
  int bias_stride = 0;
  // [kv_heads], policy::forced_opening_share(first_stream + head): merge by chance instead.
  const double* opening_shares = nullptr;
  int64_t first_stream = 0;

  DMC_HOST_DEVICE float bias_of(int64_t row) const {
    return biases != nullptr ? biases[row * bias_stride] : bias;
  }
  DMC_HOST_DEVICE int64_t row_width() const { return int64_t{kv_heads} * (group + 2) * head_dim; }
};

// The rows and where their parts go. In is f32 or bf16.
template <class In>
struct HeadsRows {
  const In* rows;            // [rows][row_width]
  const int32_t* positions;  // [rows]
  const float *cos, *sin;    // [positions][head_dim / 2]; null: not rotated
  float *q, *k, *v;          // [rows][heads][head_dim]; q rotated, k not
  uint8_t* merge;            // [rows][kv_heads]
  float* importance;         // [rows][kv_heads]
  // What an adapter says in the place of the channels: of each KV head the decision, then, if
  // there are so many more numbers in a row, the importance; null: there is none.
  const float* said = nullptr;  // [rows][said_width]
  int said_width = 0;
};

// Logits of a token's decision and importance, without offset and bias.
struct DecisionLogits {
  float decision, importance;
};

template <class In>
DMC_HOST_DEVICE DecisionLogits said_of(const HeadsRows<In>& io, int64_t row, int head,
                                       int kv_heads) {
  const float* const said = io.said + row * io.said_width;
  return {said[head], io.said_width > kv_heads ? said[kv_heads + head] : 0.0f};
}

// 1 over the root mean square of a head.
template <class Team, class In>
DMC_DEVICE float norm_factor(const In* from, int dim, float eps) {
  float sum = 0.0f;
  for (int i = Team::lane(); i < dim; i += Team::size()) {
    const float x = static_cast<float>(from[i]);
    sum += x * x;
  }
  return 1.0f / sqrtf(Team::sum(sum) / static_cast<float>(dim) + eps);
}

// One KV head of one row with its queries.
template <class Team, class In>
DMC_DEVICE void split_head(const HeadsSpec& spec, const HeadsRows<In>& io, int64_t row, int head) {
  const int d = spec.head_dim, half = d / 2, last = d - 1;
  const int query_heads = spec.kv_heads * spec.group;
  const In* const from = io.rows + row * spec.row_width();
  const int64_t at = (row * spec.kv_heads + head) * d;
  const int64_t angle = io.cos != nullptr ? int64_t{io.positions[row]} * half : 0;
  // What channel i of a normed head holds.
  const auto value = [&](const In* of, float factor, const float* weight, int i) {
    const float x = static_cast<float>(of[i]);
    return weight != nullptr ? x * factor * weight[i] : x;
  };
  const bool both = spec.channel == DecisionChannel::kQueriesAndKeys;
  const auto kept = [&](float x, int i) { return both && i == last ? 0.0f : x; };

  float channel_sum = 0.0f;    // of the queries' decision channels
  float first_channel = 0.0f;  // of the first query
  for (int g = 0; g < spec.group; ++g) {
    const int query = head * spec.group + g;
    const In* const of = from + int64_t{query} * d;
    const float factor = spec.q_norm != nullptr ? norm_factor<Team>(of, d, spec.norm_eps) : 1.0f;
    const float channel = value(of, factor, spec.q_norm, last);
    channel_sum += channel;
    const bool decides = spec.channel == DecisionChannel::kFirstQueries && g == 0;
    if (decides) first_channel = channel;
    float* const to = io.q + (row * query_heads + query) * d;
    for (int i = Team::lane(); i < half; i += Team::size()) {
      const float low = value(of, factor, spec.q_norm, i);
      const bool gone = decides && half + i == last;
      const float high = gone ? 0.0f : kept(value(of, factor, spec.q_norm, half + i), half + i);
      const float cos = io.cos != nullptr ? io.cos[angle + i] : 1.0f;
      const float sin = io.cos != nullptr ? io.sin[angle + i] : 0.0f;
      to[i] = low * cos - high * sin;
      to[half + i] = gone ? 0.0f : high * cos + low * sin;
    }
  }
  const In* const key = from + int64_t{query_heads + head} * d;
  const In* const val = from + int64_t{query_heads + spec.kv_heads + head} * d;
  const float factor = spec.k_norm != nullptr ? norm_factor<Team>(key, d, spec.norm_eps) : 1.0f;
  for (int i = Team::lane(); i < d; i += Team::size()) {
    io.k[at + i] = kept(value(key, factor, spec.k_norm, i), i);
    io.v[at + i] = static_cast<float>(val[i]);
  }
  if (Team::lane() != 0) return;
  const DecisionLogits logits = io.said != nullptr ? said_of(io, row, head, spec.kv_heads)
                                : both
                                    ? DecisionLogits{value(key, factor, spec.k_norm, last),
                                                     channel_sum / static_cast<float>(spec.group)}
                                    : DecisionLogits{first_channel, 0.0f};
  const int64_t scalar = row * spec.kv_heads + head;
  io.merge[scalar] = spec.opening_shares != nullptr
                         ? policy::forced_merge(spec.opening_shares[head], spec.first_stream + head,
                                                io.positions[row])
                         : spec.decides && policy::decides_to_hide(spec.constants, logits.decision,
                                                                   spec.bias_of(row));
  io.importance[scalar] =
      spec.decides ? policy::importance(spec.constants, logits.importance) : 1.0f;
}

}  // namespace dmc::kernels::cuda

#include "kernels/ref/attention_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dmc::kernels::ref {
namespace {

// Adds one key and value to a partial state; returns the score.
double fold(const float* key, const float* value, float mass, const float* q, int head_dim,
            float scale, AttnState* state, float* out) {
  double score = 0.0;
  for (int i = 0; i < head_dim; ++i) score += static_cast<double>(q[i]) * key[i];
  score = score * scale + mass;
  const double max = std::max<double>(state->max, score);
  const double keep = std::exp(state->max - max), weight = std::exp(score - max);
  for (int i = 0; i < head_dim; ++i) {
    out[i] = static_cast<float>(out[i] * keep + weight * value[i]);
  }
  *state = {static_cast<float>(max), static_cast<float>(state->sum * keep + weight)};
  return score;
}

}  // namespace

void attend_rows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                 const int64_t* visible, float scale, AttnState* states, float* out) {
  const int d = pool.format.head_dim;
  const int64_t P = pool.format.page_slots;
  std::vector<float> key(static_cast<size_t>(d)), value(key.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t slot = slots.first; slot < std::min(slots.last, visible[r]); ++slot) {
      read_slot(pool, slots.pages[slot / P], slot % P, key.data(), value.data());
      const float mass = pool.format.masses ? *pool.masses(slots.pages[slot / P], slot % P) : 0.0f;
      const double score =
          fold(key.data(), value.data(), mass, q + r * d, d, scale, &states[r], out + r * d);
      if (slots.scores != nullptr) {
        slots.scores[r * slots.score_stride + slot] = static_cast<float>(score);
      }
    }
  }
}

void attend_slots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                  float scale, AttnState* states, float* out) {
  for (int g = 0; g < group; ++g) {
    SlotRange of_query = slots;
    if (slots.scores != nullptr) of_query.scores += g * slots.score_stride;
    attend_rows(pool, of_query, q + g * pool.format.head_dim, 1, &slots.last, scale, &states[g],
                out + g * pool.format.head_dim);
  }
}

}  // namespace dmc::kernels::ref

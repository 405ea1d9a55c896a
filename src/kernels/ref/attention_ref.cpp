#include "kernels/ref/attention_ref.h"

#include <algorithm>
#include <cmath>

namespace dmc::kernels::ref {
namespace {

// Adds one key and value to a partial state.
void fold(const float* key, const float* value, const float* q, int head_dim, float scale,
          AttnState* state, float* out) {
  double score = 0.0;
  for (int i = 0; i < head_dim; ++i) score += static_cast<double>(q[i]) * key[i];
  score *= scale;
  const double max = std::max<double>(state->max, score);
  const double keep = std::exp(state->max - max), weight = std::exp(score - max);
  for (int i = 0; i < head_dim; ++i) {
    out[i] = static_cast<float>(out[i] * keep + weight * value[i]);
  }
  *state = {static_cast<float>(max), static_cast<float>(state->sum * keep + weight)};
}

}  // namespace

void attend_rows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                 const int64_t* visible, float scale, AttnState* states, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t slot = slots.first; slot < std::min(slots.last, visible[r]); ++slot) {
      const int32_t page = slots.pages[slot / pool.page_slots];
      fold(pool.key(page, slot % pool.page_slots), pool.value(page, slot % pool.page_slots),
           q + r * pool.head_dim, pool.head_dim, scale, &states[r], out + r * pool.head_dim);
    }
  }
}

void attend_slots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                  float scale, AttnState* states, float* out) {
  for (int g = 0; g < group; ++g) {
    attend_rows(pool, slots, q + g * pool.head_dim, 1, &slots.last, scale, &states[g],
                out + g * pool.head_dim);
  }
}

}  // namespace dmc::kernels::ref

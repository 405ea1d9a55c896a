// The online softmax of the attention kernels; see simd-inl.h for the include guard.
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cpu/simd-inl.h"

#if defined(DMC_KERNELS_CPU_SOFTMAX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DMC_KERNELS_CPU_SOFTMAX_INL_H
#undef DMC_KERNELS_CPU_SOFTMAX_INL_H
#else
#define DMC_KERNELS_CPU_SOFTMAX_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

HWY_INLINE void scale_by(float* HWY_RESTRICT out, float factor, int64_t n) {
  const Tag tag;
  const Vec f = hn::Set(tag, factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::Mul(f, load(out + i)), tag, out + i);
  for (; i < n; ++i) out[i] *= factor;
}

HWY_INLINE void add_to(float* HWY_RESTRICT out, const float* HWY_RESTRICT more, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Add(load(out + i), load(more + i)), Tag(), out + i);
  }
  for (; i < n; ++i) out[i] += more[i];
}

HWY_INLINE float max_of(const float* HWY_RESTRICT values, int64_t n, float start) {
  const Tag tag;
  Vec maxima = hn::Set(tag, start);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) maxima = hn::Max(maxima, load(values + i));
  float max = hn::GetLane(hn::MaxOfLanes(tag, maxima));
  for (; i < n; ++i) max = std::max(max, values[i]);
  return max;
}

// Scores of one row become weights exp(s - max); the row's state takes them in, and `out` is
// rescaled to the new maximum.
HWY_INLINE void take_scores(float* HWY_RESTRICT scores, int64_t count, int head_dim,
                            AttnState* state, float* HWY_RESTRICT out) {
  const Tag tag;
  const float max = max_of(scores, count, state->max);
  if (max > state->max) {
    const float keep = std::exp(state->max - max);
    scale_by(out, keep, head_dim);
    *state = {max, state->sum * keep};
  }
  const Vec shift = hn::Set(tag, max);
  Vec total = hn::Zero(tag);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec weight = hn::Exp(tag, hn::Sub(load(scores + i), shift));
    hn::StoreU(weight, tag, scores + i);
    total = hn::Add(total, weight);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, total));
  for (; i < count; ++i) sum += scores[i] = std::exp(scores[i] - max);
  state->sum += sum;
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

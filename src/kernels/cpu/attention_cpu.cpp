#include "kernels/cpu/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/cache_control.h>
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vec = hn::Vec<Tag>;

// Slots laid out at once by attend_rows: their keys and values stay in the L1 and L2 caches while
// all rows of a tile pass over them.
constexpr int64_t kBlockSlots = 64;
constexpr float kHidden = -1e30f;  // the score of a slot that a row must not see

// sums[s] = scale * (q . keys[s]) for kSlots keys: q is loaded once for all, and their sums do not
// wait for each other.
template <int kSlots>
HWY_INLINE void dots(const float* HWY_RESTRICT q, const float* HWY_RESTRICT keys, int n,
                     float scale, float* HWY_RESTRICT sums) {
  const Tag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  Vec acc[kSlots];
  for (int s = 0; s < kSlots; ++s) acc[s] = hn::Zero(tag);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Vec part = hn::LoadU(tag, q + i);
    for (int s = 0; s < kSlots; ++s) {
      acc[s] = hn::MulAdd(part, hn::LoadU(tag, keys + s * n + i), acc[s]);
    }
  }
  for (int s = 0; s < kSlots; ++s) {
    float sum = hn::GetLane(hn::SumOfLanes(tag, acc[s]));
    for (int tail = i; tail < n; ++tail) sum += q[tail] * keys[s * n + tail];
    sums[s] = scale * sum;
  }
}

HWY_INLINE void scale_by(float* HWY_RESTRICT out, float factor, int64_t n) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const Vec f = hn::Set(tag, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(tag, out + i)), tag, out + i);
  for (; i < n; ++i) out[i] *= factor;
}

HWY_INLINE float max_of(const float* HWY_RESTRICT values, int64_t n, float start) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  Vec maxima = hn::Set(tag, start);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) maxima = hn::Max(maxima, hn::LoadU(tag, values + i));
  float max = hn::GetLane(hn::MaxOfLanes(tag, maxima));
  for (; i < n; ++i) max = std::max(max, values[i]);
  return max;
}

// Scores of one row become weights exp(s - max); the row's state takes them in, and `out` is
// rescaled to the new maximum.
HWY_INLINE void take_scores(float* HWY_RESTRICT scores, int64_t count, int head_dim,
                            AttnState* state, float* HWY_RESTRICT out) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const float max = max_of(scores, count, state->max);
  if (max > state->max) {
    const float keep = std::exp(state->max - max);
    scale_by(out, keep, head_dim);
    *state = {max, state->sum * keep};
  }
  const Vec shift = hn::Set(tag, max);
  Vec total = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Vec weight = hn::Exp(tag, hn::Sub(hn::LoadU(tag, scores + i), shift));
    hn::StoreU(weight, tag, scores + i);
    total = hn::Add(total, weight);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, total));
  for (; i < count; ++i) sum += scores[i] = std::exp(scores[i] - max);
  state->sum += sum;
}

// One panel of product(): kRows x kWidth vectors of sums stay in registers.
template <int kRows, int kWidth>
HWY_INLINE void panel(const float* HWY_RESTRICT a, int64_t a_stride, const float* HWY_RESTRICT b,
                      int64_t b_stride, int64_t inner, float* HWY_RESTRICT c, int64_t c_stride,
                      bool add) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  Vec sums[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) {
      sums[r][w] = add ? hn::LoadU(tag, c + r * c_stride + w * lanes) : hn::Zero(tag);
    }
  }
  for (int64_t i = 0; i < inner; ++i) {
    Vec row[kWidth];
    for (int w = 0; w < kWidth; ++w) row[w] = hn::LoadU(tag, b + i * b_stride + w * lanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = hn::Set(tag, a[r * a_stride + i]);
      for (int w = 0; w < kWidth; ++w) sums[r][w] = hn::MulAdd(factor, row[w], sums[r][w]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) hn::StoreU(sums[r][w], tag, c + r * c_stride + w * lanes);
  }
}

// kRows rows of product(). Eight sums in flight hide the latency of a multiply-add.
template <int kRows>
HWY_INLINE void row_product(const float* HWY_RESTRICT a, int64_t a_stride,
                            const float* HWY_RESTRICT b, int64_t b_stride, int64_t inner,
                            float* HWY_RESTRICT c, int64_t c_stride, int64_t cols, bool add) {
  constexpr int kWidth = 8 / kRows;
  const auto lanes = static_cast<int64_t>(hn::Lanes(Tag()));
  int64_t col = 0;
  for (; col + kWidth * lanes <= cols; col += kWidth * lanes) {
    panel<kRows, kWidth>(a, a_stride, b + col, b_stride, inner, c + col, c_stride, add);
  }
  for (; col + lanes <= cols; col += lanes) {
    panel<kRows, 1>(a, a_stride, b + col, b_stride, inner, c + col, c_stride, add);
  }
  for (; col < cols; ++col) {  // head sizes that are no multiple of the vector length
    for (int r = 0; r < kRows; ++r) {
      float sum = add ? c[r * c_stride + col] : 0.0f;
      for (int64_t i = 0; i < inner; ++i) sum += a[r * a_stride + i] * b[i * b_stride + col];
      c[r * c_stride + col] = sum;
    }
  }
}

// C[r][0..cols) = (add ? C : 0) + sum_i A[r][i] * B[i][0..cols).
HWY_NOINLINE void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                          int64_t rows, int64_t inner, float* c, int64_t c_stride, int64_t cols,
                          bool add) {
  const auto run = [&](auto count, int64_t r) {
    row_product<decltype(count)::value>(a + r * a_stride, a_stride, b, b_stride, inner,
                                        c + r * c_stride, c_stride, cols, add);
    return r + count;
  };
  int64_t r = 0;
  while (r + 4 <= rows) r = run(std::integral_constant<int, 4>(), r);
  while (r + 2 <= rows) r = run(std::integral_constant<int, 2>(), r);
  while (r < rows) r = run(std::integral_constant<int, 1>(), r);
}

// --- decoding: a few queries, every slot read once --------------------------------------------

// Asks for `slots` keys and values of a page. Pages lie anywhere, so the hardware cannot guess the
// next one.
HWY_INLINE void prefetch(const PoolView& pool, int32_t page, int64_t first, int64_t slots) {
  constexpr int kLineFloats = 16;
  for (int64_t i = first * pool.head_dim; i < (first + slots) * pool.head_dim; i += kLineFloats) {
    hwy::Prefetch(pool.key(page, 0) + i);
    hwy::Prefetch(pool.value(page, 0) + i);
  }
}

void AttendSlots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                 float scale, AttnState* states, float* out) {
  constexpr int kSlotsAtOnce = 4;
  const int d = pool.head_dim;
  const int64_t P = pool.page_slots;
  std::vector<float> scores(static_cast<size_t>(group * P));
  for (int64_t first = slots.first; first < slots.last;) {
    const int32_t page = slots.pages[first / P];
    const int64_t begin = first % P, count = std::min(P - begin, slots.last - first);
    const int32_t next_page = first + count < slots.last ? slots.pages[first / P + 1] : page;
    int64_t s = 0;
    for (; s + kSlotsAtOnce <= count; s += kSlotsAtOnce) {
      prefetch(pool, next_page, s, kSlotsAtOnce);
      const float* keys = pool.key(page, begin + s);
      for (int g = 0; g < group; ++g) {
        dots<kSlotsAtOnce>(q + g * d, keys, d, scale, &scores[g * P + s]);
      }
    }
    for (; s < count; ++s) {
      const float* key = pool.key(page, begin + s);
      for (int g = 0; g < group; ++g) dots<1>(q + g * d, key, d, scale, &scores[g * P + s]);
    }
    for (int g = 0; g < group; ++g) take_scores(&scores[g * P], count, d, &states[g], out + g * d);
    product(scores.data(), P, pool.value(page, begin), d, group, count, out, d, d, /*add=*/true);
    first += count;
  }
}

// --- prefill: many queries, blocks of slots used again and again ------------------------------

// A block of slots: keys transposed, so that scores need no sums across lanes.
struct Block {
  std::vector<float> keys;    // [head_dim][kBlockSlots]
  std::vector<float> values;  // [kBlockSlots][head_dim]

  explicit Block(int head_dim)
      : keys(static_cast<size_t>(head_dim) * kBlockSlots), values(keys.size()) {}

  // Slots that a short block lacks keep old numbers: their weights are 0.
  void load(const PoolView& pool, const int32_t* pages, int64_t first, int64_t count) {
    for (int64_t s = 0; s < count; ++s) {
      const int32_t page = pages[(first + s) / pool.page_slots];
      const float* key = pool.key(page, (first + s) % pool.page_slots);
      const float* value = pool.value(page, (first + s) % pool.page_slots);
      for (int i = 0; i < pool.head_dim; ++i) keys[i * kBlockSlots + s] = key[i];
      std::copy_n(value, pool.head_dim, &values[s * pool.head_dim]);
    }
  }
};

void AttendRows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                const int64_t* visible, float scale, AttnState* states, float* out) {
  const int d = pool.head_dim;
  Block block(d);
  std::vector<float> scores(static_cast<size_t>(rows) * kBlockSlots);
  for (int64_t first = slots.first; first < slots.last; first += kBlockSlots) {
    const int64_t count = std::min(kBlockSlots, slots.last - first);
    // visible never falls, so the rows that see anything of this block are the last ones.
    const int64_t begin = std::upper_bound(visible, visible + rows, first) - visible;
    if (begin == rows) break;
    block.load(pool, slots.pages, first, count);
    product(q + begin * d, d, block.keys.data(), kBlockSlots, rows - begin, d,
            &scores[begin * kBlockSlots], kBlockSlots, kBlockSlots, /*add=*/false);
    for (int64_t r = begin; r < rows; ++r) {
      float* const row = &scores[r * kBlockSlots];
      scale_by(row, scale, kBlockSlots);
      std::fill(row + std::min(count, visible[r] - first), row + kBlockSlots, kHidden);
      take_scores(row, kBlockSlots, d, &states[r], out + r * d);
    }
    product(&scores[begin * kBlockSlots], kBlockSlots, block.values.data(), d, rows - begin,
            kBlockSlots, out + begin * d, d, d, /*add=*/true);
  }
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(AttendSlots);
HWY_EXPORT(AttendRows);

void attend_slots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                  float scale, AttnState* states, float* out) {
  HWY_DYNAMIC_DISPATCH(AttendSlots)(pool, slots, q, group, scale, states, out);
}

void attend_rows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                 const int64_t* visible, float scale, AttnState* states, float* out) {
  HWY_DYNAMIC_DISPATCH(AttendRows)(pool, slots, q, rows, visible, scale, states, out);
}

}  // namespace dmc::kernels::cpu
#endif

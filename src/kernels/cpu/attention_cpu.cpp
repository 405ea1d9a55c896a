#include "kernels/cpu/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
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

// --- decoding: a few queries, every slot read once --------------------------------------------

HWY_INLINE float dot(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int n) {
  const Tag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  Vec sum0 = hn::Zero(tag), sum1 = hn::Zero(tag);
  int i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(tag, a + i), hn::LoadU(tag, b + i), sum0);
    sum1 = hn::MulAdd(hn::LoadU(tag, a + i + lanes), hn::LoadU(tag, b + i + lanes), sum1);
  }
  for (; i + lanes <= n; i += lanes) {
    sum0 = hn::MulAdd(hn::LoadU(tag, a + i), hn::LoadU(tag, b + i), sum0);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, hn::Add(sum0, sum1)));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

HWY_INLINE void add_scaled(float* HWY_RESTRICT out, const float* HWY_RESTRICT in, float factor,
                           int n) {
  const Tag tag;
  const int lanes = static_cast<int>(hn::Lanes(tag));
  const Vec f = hn::Set(tag, factor);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::MulAdd(f, hn::LoadU(tag, in + i), hn::LoadU(tag, out + i)), tag, out + i);
  }
  for (; i < n; ++i) out[i] += factor * in[i];
}

HWY_INLINE void scale_by(float* HWY_RESTRICT out, float factor, int64_t n) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const Vec f = hn::Set(tag, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(tag, out + i)), tag, out + i);
  for (; i < n; ++i) out[i] *= factor;
}

// Scores of one row become weights exp(s - max); the row's state takes them in, and `out` is
// rescaled to the new maximum.
HWY_INLINE void take_scores(float* HWY_RESTRICT scores, int64_t count, int head_dim,
                            AttnState* state, float* HWY_RESTRICT out) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  float max = state->max;
  for (int64_t i = 0; i < count; ++i) max = std::max(max, scores[i]);
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

void AttendSlots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                 float scale, AttnState* states, float* out) {
  const int d = pool.head_dim;
  const int64_t P = pool.page_slots;
  std::vector<float> scores(static_cast<size_t>(group * P));
  for (int64_t first = slots.first; first < slots.last;) {
    const int32_t page = slots.pages[first / P];
    const int64_t begin = first % P, count = std::min(P - begin, slots.last - first);
    for (int64_t s = 0; s < count; ++s) {
      const float* key = pool.key(page, begin + s);
      for (int g = 0; g < group; ++g) scores[g * P + s] = scale * dot(q + g * d, key, d);
    }
    for (int g = 0; g < group; ++g) take_scores(&scores[g * P], count, d, &states[g], out + g * d);
    for (int64_t s = 0; s < count; ++s) {
      const float* value = pool.value(page, begin + s);
      for (int g = 0; g < group; ++g) add_scaled(out + g * d, value, scores[g * P + s], d);
    }
    first += count;
  }
}

// --- prefill: many queries, blocks of slots used again and again ------------------------------

// C[r][0..cols) = (add ? C : 0) + sum_i A[r][i] * B[i][0..cols) for kRows rows. cols is a multiple
// of the vector length.
template <int kRows>
HWY_INLINE void small_product(const float* HWY_RESTRICT a, int64_t a_stride,
                              const float* HWY_RESTRICT b, int64_t b_stride, int64_t inner,
                              float* HWY_RESTRICT c, int64_t c_stride, int64_t cols, bool add) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t col = 0;
  const auto panel = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    Vec sums[kRows][kWidth];
    for (int r = 0; r < kRows; ++r) {
      for (int w = 0; w < kWidth; ++w) {
        sums[r][w] = add ? hn::LoadU(tag, c + r * c_stride + col + w * lanes) : hn::Zero(tag);
      }
    }
    for (int64_t i = 0; i < inner; ++i) {
      Vec row[kWidth];
      for (int w = 0; w < kWidth; ++w) row[w] = hn::LoadU(tag, b + i * b_stride + col + w * lanes);
      for (int r = 0; r < kRows; ++r) {
        const Vec factor = hn::Set(tag, a[r * a_stride + i]);
        for (int w = 0; w < kWidth; ++w) sums[r][w] = hn::MulAdd(factor, row[w], sums[r][w]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int w = 0; w < kWidth; ++w) {
        hn::StoreU(sums[r][w], tag, c + r * c_stride + col + w * lanes);
      }
    }
    col += kWidth * lanes;
  };
  while (col + 2 * lanes <= cols) panel(std::integral_constant<int, 2>());
  while (col + lanes <= cols) panel(std::integral_constant<int, 1>());
}

HWY_INLINE void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                        int64_t rows, int64_t inner, float* c, int64_t c_stride, int64_t cols,
                        bool add) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    small_product<4>(a + r * a_stride, a_stride, b, b_stride, inner, c + r * c_stride, c_stride,
                     cols, add);
  }
  for (; r < rows; ++r) {
    small_product<1>(a + r * a_stride, a_stride, b, b_stride, inner, c + r * c_stride, c_stride,
                     cols, add);
  }
}

// A block of slots: keys transposed, so that scores need no sums across lanes, values as rows
// padded to whole vectors.
struct Block {
  std::vector<float> keys;    // [head_dim][kBlockSlots]
  std::vector<float> values;  // [kBlockSlots][width]
  int64_t width;

  explicit Block(int head_dim) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(Tag()));
    width = (head_dim + lanes - 1) / lanes * lanes;
    keys.resize(static_cast<size_t>(head_dim) * kBlockSlots);
    values.resize(static_cast<size_t>(width) * kBlockSlots);
  }
  // Slots that a short block lacks keep old numbers: their weights are 0.
  void load(const PoolView& pool, const int32_t* pages, int64_t first, int64_t count) {
    for (int64_t s = 0; s < count; ++s) {
      const int32_t page = pages[(first + s) / pool.page_slots];
      const float* key = pool.key(page, (first + s) % pool.page_slots);
      const float* value = pool.value(page, (first + s) % pool.page_slots);
      for (int i = 0; i < pool.head_dim; ++i) keys[i * kBlockSlots + s] = key[i];
      std::copy_n(value, pool.head_dim, &values[s * width]);
    }
  }
};

void AttendRows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                const int64_t* visible, float scale, AttnState* states, float* out) {
  const int d = pool.head_dim;
  Block block(d);
  std::vector<float> scores(static_cast<size_t>(rows) * kBlockSlots);
  std::vector<float> wide(static_cast<size_t>(rows * block.width), 0.0f);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(out + r * d, d, &wide[r * block.width]);

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
      take_scores(row, kBlockSlots, d, &states[r], &wide[r * block.width]);
    }
    product(&scores[begin * kBlockSlots], kBlockSlots, block.values.data(), block.width,
            rows - begin, kBlockSlots, &wide[begin * block.width], block.width, block.width,
            /*add=*/true);
  }
  for (int64_t r = 0; r < rows; ++r) std::copy_n(&wide[r * block.width], d, out + r * d);
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

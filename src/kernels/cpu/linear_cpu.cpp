#include "kernels/cpu/linear_cpu.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/cache_control.h>
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

constexpr int kBlock = PackedWeights::kBlock;
// Vectors of outputs at a time: with kPanelRows rows, the sums that registers hold.
constexpr int kVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;
// Inputs for which a strip of narrow weights is widened at once: in f32 it stays in the L2 cache.
constexpr int64_t kStrip = 128;
// From so many rows on, widening a strip once pays; below, every panel widens for itself.
constexpr int64_t kRowsToWiden = 3 * kPanelRows;

// c[r][0..kVectors vectors) += sum_i a[i][r] * w[i][...]: one chain of multiply-adds an output,
// over i in order, whatever kRows is.
template <int kRows, class T>
HWY_INLINE void tile(const float* HWY_RESTRICT a, const T* HWY_RESTRICT w, int64_t inputs,
                     float* HWY_RESTRICT c, int64_t c_stride) {
  const Tag tag;
  constexpr int kWide = kRows == 1 ? kBlock / kLanes / (kLanes > 1 ? 1 : 4) : kVectors;
  constexpr int64_t kAhead = 8;  // inputs
  Vec sums[kRows][kWide];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWide; ++v) sums[r][v] = load(c + r * c_stride + v * kLanes);
  }
  for (int64_t i = 0; i < inputs; ++i) {
    Vec weights[kWide];
    if constexpr (kRows == 1) {
      for (size_t byte = 0; byte < kBlock * sizeof(T); byte += 64) {
        hwy::Prefetch(reinterpret_cast<const std::byte*>(w + (i + kAhead) * kBlock) + byte);
      }
    }
    for (int v = 0; v < kWide; ++v) weights[v] = load(w + i * kBlock + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec x = hn::Set(tag, a[i * kRows + r]);
      for (int v = 0; v < kWide; ++v) sums[r][v] = hn::MulAdd(x, weights[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWide; ++v) hn::StoreU(sums[r][v], tag, c + r * c_stride + v * kLanes);
  }
}

template <int kRows, class T>
HWY_INLINE void panel_rows(const float* a, const T* w, int64_t inputs, float* c, int64_t c_stride) {
  constexpr int kStep = kRows == 1 ? kBlock / (kLanes > 1 ? 1 : 4) : kVectors * kLanes;
  for (int first = 0; first < kBlock; first += kStep) {
    tile<kRows>(a, w + first, inputs, c + first, c_stride);
  }
}

// All rows with inputs first..first+inputs-1 of the block.
template <class T>
HWY_NOINLINE void accumulate(const float* x, const T* w, int64_t rows, int64_t all_inputs,
                             int64_t first, int64_t inputs, float* c, int64_t c_stride) {
  static_assert(kPanelRows == 6);
  for (int64_t begin = 0; begin < rows; begin += kPanelRows) {
    const int64_t width = std::min(kPanelRows, rows - begin);
    const float* const a = x + begin * all_inputs + first * width;
    float* const to = c + begin * c_stride;
    switch (width) {
      case 1:
        panel_rows<1>(a, w, inputs, to, c_stride);
        break;
      case 2:
        panel_rows<2>(a, w, inputs, to, c_stride);
        break;
      case 3:
        panel_rows<3>(a, w, inputs, to, c_stride);
        break;
      case 4:
        panel_rows<4>(a, w, inputs, to, c_stride);
        break;
      case 5:
        panel_rows<5>(a, w, inputs, to, c_stride);
        break;
      default:
        panel_rows<6>(a, w, inputs, to, c_stride);
    }
  }
}

template <class T>
HWY_INLINE void widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes) hn::StoreU(load(from + i), Tag(), to + i);
}

template <class T>
HWY_INLINE void block_of(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                         float* c, int64_t c_stride) {
  const T* const w = reinterpret_cast<const T*>(weights.block(block));
  const int64_t inputs = weights.inputs();
  if (rows < kRowsToWiden) {
    return accumulate(x, w, rows, inputs, 0, inputs, c, c_stride);
  }
  HWY_ALIGN static thread_local float strip[std::is_same_v<T, float> ? 1 : kStrip * kBlock];
  for (int64_t first = 0; first < inputs; first += kStrip) {
    const int64_t count = std::min(kStrip, inputs - first);
    if constexpr (std::is_same_v<T, float>) {
      accumulate(x, w + first * kBlock, rows, inputs, first, count, c, c_stride);
    } else {
      widen(w + first * kBlock, count * kBlock, strip);
      accumulate(x, static_cast<const float*>(strip), rows, inputs, first, count, c, c_stride);
    }
  }
}

// Scales of 8-bit weights and the bias, once all inputs are summed.
void finish(const float* scales, const float* bias, int64_t rows, int64_t width, float* c,
            int64_t c_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    float* const row = c + r * c_stride;
    if (scales != nullptr) {
      for (int64_t i = 0; i < width; ++i) row[i] *= scales[i];
    }
    if (bias != nullptr) {
      for (int64_t i = 0; i < width; ++i) row[i] += bias[i];
    }
  }
}

void LinearBlock(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                 const float* bias, float* y) {
  const int64_t first = block * kBlock,
                width = std::min<int64_t>(kBlock, weights.outputs() - first);
  const int64_t outputs = weights.outputs();
  // A block that is not full is summed in a place of its own.
  std::vector<float> aside(width < kBlock ? static_cast<size_t>(rows) * kBlock : 0);
  float* const c = aside.empty() ? y + first : aside.data();
  const int64_t c_stride = aside.empty() ? outputs : kBlock;
  for (int64_t r = 0; r < rows; ++r) std::fill_n(c + r * c_stride, kBlock, 0.0f);
  with_element_type(weights.type(), [&](auto element) HWY_ATTR {
    block_of<decltype(element)>(weights, block, x, rows, c, c_stride);
  });
  finish(weights.scales(block), bias == nullptr ? nullptr : bias + first, rows, width, c, c_stride);
  if (aside.empty()) return;
  for (int64_t r = 0; r < rows; ++r) std::copy_n(c + r * c_stride, width, y + r * outputs + first);
}

void SiluProduct(const float* gate, const float* up, int64_t count, float* out) {
  const Tag tag;
  const Vec one = hn::Set(tag, 1.0f);
  const Vec most = hn::Set(tag, 88.0f);  // the vector exp() knows no larger exponent
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec g = load(gate + i);
    const Vec gated = hn::Div(g, hn::Add(one, hn::Exp(tag, hn::Min(hn::Neg(g), most))));
    hn::StoreU(hn::Mul(gated, load(up + i)), tag, out + i);
  }
  for (; i < count; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(LinearBlock);
HWY_EXPORT(SiluProduct);

void linear_block(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                  const float* bias, float* y) {
  HWY_DYNAMIC_DISPATCH(LinearBlock)(weights, block, x, rows, bias, y);
}

void silu_product(const float* gate, const float* up, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(SiluProduct)(gate, up, count, out);
}

}  // namespace dmc::kernels::cpu
#endif

// Products of small matrices that lie in the caches; see simd-inl.h for the include guard.
#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/simd-inl.h"

#if defined(DMC_KERNELS_CPU_PRODUCT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DMC_KERNELS_CPU_PRODUCT_INL_H
#undef DMC_KERNELS_CPU_PRODUCT_INL_H
#else
#define DMC_KERNELS_CPU_PRODUCT_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

// The left operand: element (row, i) is at data[row * row_stride + i * inner_stride].
template <class C>
struct Left {
  const C* data;
  int64_t row_stride, inner_stride = 1;

  const C* row(int64_t r) const { return data + r * row_stride; }
};

// Rows and vectors of columns whose sums registers hold beside the operands: 16 or 32 registers.
constexpr int kMostRows = HWY_MAX_BYTES >= 64 ? 6 : 4;
constexpr int kMostSums = HWY_MAX_BYTES >= 64 ? 24 : 8;

// One panel of product(): kRows x kWidth vectors of `tag` of sums stay in registers. C: the type
// computed in, float or double; T: the right operand's elements, C or, with whole vectors,
// something narrower than float.
template <int kRows, int kWidth, class Tag, class C, class T>
HWY_INLINE void panel(Tag tag, const Left<C>& a, const T* HWY_RESTRICT b, int64_t b_stride,
                      int64_t inner, C* HWY_RESTRICT c, int64_t c_stride, bool add) {
  constexpr int kStep = hn::MaxLanes(Tag());
  const auto load_right = [tag](const T* from) HWY_ATTR {
    if constexpr (std::is_same_v<C, T>) {
      return hn::LoadU(tag, from);
    } else {
      return load(from);
    }
  };
  hn::Vec<Tag> sums[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) {
      sums[r][w] = add ? hn::LoadU(tag, c + r * c_stride + w * kStep) : hn::Zero(tag);
    }
  }
  for (int64_t i = 0; i < inner; ++i) {
    hn::Vec<Tag> row[kWidth];
    for (int w = 0; w < kWidth; ++w) row[w] = load_right(b + i * b_stride + w * kStep);
    for (int r = 0; r < kRows; ++r) {
      const auto factor = hn::Set(tag, a.data[r * a.row_stride + i * a.inner_stride]);
      for (int w = 0; w < kWidth; ++w) sums[r][w] = hn::MulAdd(factor, row[w], sums[r][w]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) hn::StoreU(sums[r][w], tag, c + r * c_stride + w * kStep);
  }
}

// kRows rows of product().
template <int kRows, class C, class T>
HWY_INLINE void row_product(const Left<C>& a, const T* HWY_RESTRICT b, int64_t b_stride,
                            int64_t inner, C* HWY_RESTRICT c, int64_t c_stride, int64_t cols,
                            bool add) {
  const hn::ScalableTag<C> whole;
  const hn::Half<decltype(whole)> half;
  constexpr int kStep = HWY_LANES(C), kHalf = hn::MaxLanes(half);
  constexpr int kWidth = kMostSums / kRows > 8 ? 8 : kMostSums / kRows;
  int64_t col = 0;
  for (; col + kWidth * kStep <= cols; col += kWidth * kStep) {
    panel<kRows, kWidth>(whole, a, b + col, b_stride, inner, c + col, c_stride, add);
  }
  for (; col + kStep <= cols; col += kStep) {
    panel<kRows, 1>(whole, a, b + col, b_stride, inner, c + col, c_stride, add);
  }
  // All there are in heads of 8 where vectors have 16 floats. (Vectors of one have no half.)
  if constexpr (std::is_same_v<C, T> && kHalf < kStep) {
    if (col + kHalf <= cols) {
      panel<kRows, 1>(half, a, b + col, b_stride, inner, c + col, c_stride, add);
      col += kHalf;
    }
  }
  for (; col < cols; ++col) {
    for (int r = 0; r < kRows; ++r) {
      C sum = add ? c[r * c_stride + col] : C{0};
      for (int64_t i = 0; i < inner; ++i) {
        sum += a.data[r * a.row_stride + i * a.inner_stride] * load_one(b + i * b_stride + col);
      }
      c[r * c_stride + col] = sum;
    }
  }
}

// C[r][0..cols) = (add ? C : 0) + sum_i A[r][i] * B[i][0..cols).
template <class C, class T>
HWY_INLINE void product(const Left<C>& a, const T* b, int64_t b_stride, int64_t rows, int64_t inner,
                        C* c, int64_t c_stride, int64_t cols, bool add) {
  const auto run = [&](auto count, int64_t r) HWY_ATTR {
    row_product<decltype(count)::value>(Left<C>{a.row(r), a.row_stride, a.inner_stride}, b,
                                        b_stride, inner, c + r * c_stride, c_stride, cols, add);
    return r + decltype(count)::value;
  };
  int64_t r = 0;
  while (r + kMostRows <= rows) r = run(std::integral_constant<int, kMostRows>(), r);
  while (r + 2 <= rows) r = run(std::integral_constant<int, 2>(), r);
  while (r < rows) r = run(std::integral_constant<int, 1>(), r);
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

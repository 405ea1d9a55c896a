// What the SIMD kernels share. Included once for every instruction set (Highway's foreach_target),
// so the include guard is one that Highway toggles.
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "base/dtype.h"

#if defined(DMC_KERNELS_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DMC_KERNELS_CPU_SIMD_INL_H
#undef DMC_KERNELS_CPU_SIMD_INL_H
#else
#define DMC_KERNELS_CPU_SIMD_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vec = hn::Vec<Tag>;
constexpr int kLanes = HWY_LANES(float);  // vectors of our targets have one size; scalar code: 1
// Sums that a kernel may keep in registers beside its operands.
constexpr int kSums = HWY_MAX_BYTES >= 64 ? 16 : 8;

// Element types in memory; what lies there as 16 bits is read as f32.
HWY_INLINE Vec load(const float* from) { return hn::LoadU(Tag(), from); }
HWY_INLINE Vec load(const hwy::float16_t* from) {
  return hn::PromoteTo(Tag(), hn::LoadU(hn::Rebind<hwy::float16_t, Tag>(), from));
}
HWY_INLINE Vec load(const hwy::bfloat16_t* from) {
  return hn::PromoteTo(Tag(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, Tag>(), from));
}
HWY_INLINE Vec load(const int8_t* from) {
  const hn::RebindToSigned<Tag> integers;
  return hn::ConvertTo(Tag(), hn::PromoteTo(integers, hn::LoadU(hn::Rebind<int8_t, Tag>(), from)));
}

// The same for one element: the tail of a row that is no multiple of a vector.
HWY_INLINE float load_one(const float* from) { return *from; }
HWY_INLINE float load_one(const hwy::float16_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return f16_to_f32(bits);
}
HWY_INLINE float load_one(const hwy::bfloat16_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return bf16_to_f32(bits);
}
HWY_INLINE float load_one(const int8_t* from) { return static_cast<float>(*from); }

// Calls fn with a value of the C++ type that a page's (or a weight's) elements have.
template <class Fn>
HWY_INLINE void with_element_type(DType type, Fn&& fn) {
  switch (type) {
    case DType::kBF16:
      return fn(hwy::bfloat16_t());
    case DType::kF16:
      return fn(hwy::float16_t());
    case DType::kI8:
      return fn(int8_t());
    default:
      return fn(float());
  }
}

// sums[i] = sum of the lanes of vectors[i], for as many vectors as one has lanes: a tree of
// pairwise additions, three operations a vector instead of two for each halving.
HWY_INLINE Vec sums_of(Vec* vectors) {
#if HWY_TARGET != HWY_SCALAR
  const Tag tag;
  for (int count = kLanes; count > 1; count /= 2) {
    for (int i = 0; i < count / 2; ++i) {
      const Vec a = vectors[2 * i], b = vectors[2 * i + 1];
      vectors[i] = hn::Add(hn::ConcatEven(tag, b, a), hn::ConcatOdd(tag, b, a));
    }
  }
#endif
  return vectors[0];
}

// One panel of product(): kRows x kWidth vectors of sums stay in registers.
template <int kRows, int kWidth, class T>
HWY_INLINE void panel(const float* HWY_RESTRICT a, int64_t a_stride, const T* HWY_RESTRICT b,
                      int64_t b_stride, int64_t inner, float* HWY_RESTRICT c, int64_t c_stride,
                      bool add) {
  const Tag tag;
  Vec sums[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) {
      sums[r][w] = add ? hn::LoadU(tag, c + r * c_stride + w * kLanes) : hn::Zero(tag);
    }
  }
  for (int64_t i = 0; i < inner; ++i) {
    Vec row[kWidth];
    for (int w = 0; w < kWidth; ++w) row[w] = load(b + i * b_stride + w * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = hn::Set(tag, a[r * a_stride + i]);
      for (int w = 0; w < kWidth; ++w) sums[r][w] = hn::MulAdd(factor, row[w], sums[r][w]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int w = 0; w < kWidth; ++w) hn::StoreU(sums[r][w], tag, c + r * c_stride + w * kLanes);
  }
}

// kRows rows of product().
template <int kRows, class T>
HWY_INLINE void row_product(const float* HWY_RESTRICT a, int64_t a_stride, const T* HWY_RESTRICT b,
                            int64_t b_stride, int64_t inner, float* HWY_RESTRICT c,
                            int64_t c_stride, int64_t cols, bool add) {
  constexpr int kWidth = kSums / kRows > 8 ? 8 : kSums / kRows;
  int64_t col = 0;
  for (; col + kWidth * kLanes <= cols; col += kWidth * kLanes) {
    panel<kRows, kWidth>(a, a_stride, b + col, b_stride, inner, c + col, c_stride, add);
  }
  for (; col + kLanes <= cols; col += kLanes) {
    panel<kRows, 1>(a, a_stride, b + col, b_stride, inner, c + col, c_stride, add);
  }
  for (; col < cols; ++col) {
    for (int r = 0; r < kRows; ++r) {
      float sum = add ? c[r * c_stride + col] : 0.0f;
      for (int64_t i = 0; i < inner; ++i) {
        sum += a[r * a_stride + i] * load_one(b + i * b_stride + col);
      }
      c[r * c_stride + col] = sum;
    }
  }
}

// C[r][0..cols) = (add ? C : 0) + sum_i A[r][i] * B[i][0..cols).
template <class T>
HWY_INLINE void product(const float* a, int64_t a_stride, const T* b, int64_t b_stride,
                        int64_t rows, int64_t inner, float* c, int64_t c_stride, int64_t cols,
                        bool add) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    row_product<4>(a + r * a_stride, a_stride, b, b_stride, inner, c + r * c_stride, c_stride, cols,
                   add);
  }
  for (; r + 2 <= rows; r += 2) {
    row_product<2>(a + r * a_stride, a_stride, b, b_stride, inner, c + r * c_stride, c_stride, cols,
                   add);
  }
  for (; r < rows; ++r) {
    row_product<1>(a + r * a_stride, a_stride, b, b_stride, inner, c + r * c_stride, c_stride, cols,
                   add);
  }
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

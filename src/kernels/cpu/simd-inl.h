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

// Highway 1.0.3 asks the processor for AVX512-VNNI, and forgets to tell the compiler.
#if HWY_TARGET == HWY_AVX3_DL
#undef HWY_TARGET_STR
#define HWY_TARGET_STR                                                            \
  HWY_TARGET_STR_AVX3                                                             \
  ",vpclmulqdq,avx512vbmi,avx512vbmi2,vaes,avxvnni,avx512bitalg,avx512vpopcntdq," \
  "avx512vnni"
#endif

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vec = hn::Vec<Tag>;

// Before a loop over an array of sums that shall stay in registers: gcc keeps some such loops, and
// with them the array in memory.
#undef DMC_UNROLL
#define DMC_UNROLL _Pragma("GCC unroll 16")

constexpr int kLanes = HWY_LANES(float);  // vectors of our targets have one size; scalar code: 1

// Element types in memory; what lies there as 16 bits is read as f32.
HWY_INLINE Vec load(const float* from) { return hn::LoadU(Tag(), from); }
HWY_INLINE auto load(const double* from) { return hn::LoadU(hn::ScalableTag<double>(), from); }
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
// A kF8E4M3, of which slots hold finite ones only: a row with others has a scale that says so.
struct F8 {
  uint8_t bits;
};
// Its fields moved to where an f16 has them are 2^-8 of the number, subnormals too; read like this,
// it is left to scales to make up for that.
HWY_INLINE Vec load(const F8* from) {
  const hn::Rebind<int16_t, Tag> bits_tag;
  const auto bytes = hn::LoadU(hn::Rebind<int8_t, Tag>(), reinterpret_cast<const int8_t*>(from));
  const auto fields = hn::AndNot(hn::Set(bits_tag, int16_t{0x4000}),  // a copy of the sign
                                 hn::ShiftLeft<7>(hn::PromoteTo(bits_tag, bytes)));
  return hn::PromoteTo(Tag(), hn::BitCast(hn::Rebind<hwy::float16_t, Tag>(), fields));
}

// What numbers of type T are to be multiplied by when they were read by load() or load_one().
template <class T>
constexpr float kUnit = 1.0f;
template <>
constexpr float kUnit<F8> = 0x1.0p8f;

// The same for one element: the tail of a row that is no multiple of a vector.
HWY_INLINE float load_one(const float* from) { return *from; }
HWY_INLINE double load_one(const double* from) { return *from; }
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
HWY_INLINE float load_one(const F8* from) { return f8_to_f32(from->bits) / kUnit<F8>; }

// Calls fn with a value of the C++ type that a weight's elements have.
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

// The same for a page's elements.
template <class Fn>
HWY_INLINE void with_slot_element_type(DType type, Fn&& fn) {
  if (type == DType::kF8E4M3) return fn(F8());
  with_element_type(type, fn);
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

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

// Products of weights in groups and 8-bit activations.
//
// The sum over a group is one of whole numbers, so it is the same in any order and on any
// instruction set; what follows, an output's chain over groups, is the same for any number of rows.

// Before any of Highway's headers: AVX3_DL, which has sums of four 8-bit products (VNNI).
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/linear_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/groups_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

constexpr int kBlock = PackedWeights::kBlock;
// Rows whose sums registers hold beside the weights.
constexpr int kMostRowsAtOnce = 6;
using Words = hn::RebindToSigned<Tag>;

#if HWY_TARGET == HWY_SCALAR

template <class Group>
void add_row(const Group* weights, int64_t groups, const ActivationGroup* x, float* sums) {
  for (int64_t g = 0; g < groups; ++g, ++weights, ++x) {
    for (int output = 0; output < kBlock; ++output) {
      for (int64_t i = 0; i < kGroup; i += Group::kInputsOfScale) {
        int total = 0;
        for (int64_t j = i; j < i + Group::kInputsOfScale; ++j) {
          total += x->numbers[j] * weights->number(output, j);
        }
        sums[output] += weights->scale(output, i) * x->scale * static_cast<float>(total);
      }
      sums[output] += f16_to_f32(weights->minima[output]) * x->sum;
    }
  }
}

template <class Group>
void rows_of_block(const Group* weights, int64_t groups, const ActivationGroup* x, int64_t rows,
                   float* sums) {
  for (int64_t r = 0; r < rows; ++r) add_row(weights, groups, x + r * groups, sums + r * kBlock);
}

#else

using Bytes = hn::Repartition<uint8_t, Tag>;
using Shorts = hn::Repartition<int16_t, Tag>;

// Sums of products of four neighbours in 32-bit lanes: NarrowProducts of numbers of 4 bits,
// WideProducts of those of 8 bits, to which 128 was added. Both start from what WideProducts needs
// to make up for that.
#if HWY_TARGET == HWY_AVX3_DL

class NarrowProducts {
 public:
  HWY_INLINE explicit NarrowProducts(int32_t start = 0) : sums_(hn::Set(Words(), start)) {}
  HWY_INLINE void add(hn::Vec<Bytes> numbers, hn::Vec<Words> x) {
    sums_.raw = _mm512_dpbusd_epi32(sums_.raw, numbers.raw, x.raw);
  }
  HWY_INLINE hn::Vec<Words> total() const { return sums_; }

 private:
  hn::Vec<Words> sums_;
};
using WideProducts = NarrowProducts;

#else

// The lower and the upper byte of each 16 bits as numbers with a sign.
HWY_INLINE hn::Vec<Shorts> lower(hn::Vec<Shorts> pairs) {
  return hn::ShiftRight<8>(hn::ShiftLeft<8>(pairs));
}
HWY_INLINE hn::Vec<Shorts> upper(hn::Vec<Shorts> pairs) { return hn::ShiftRight<8>(pairs); }

// Of numbers whose product pairs add up within 16 bits.
HWY_INLINE hn::Vec<Shorts> pair_products(hn::Vec<Shorts> a, hn::Vec<Shorts> b) {
  return hn::Add(hn::Mul(lower(a), lower(b)), hn::Mul(upper(a), upper(b)));
}
HWY_INLINE hn::Vec<Shorts> narrow_pair_products(hn::Vec<Bytes> numbers, hn::Vec<Words> x) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<Shorts>{_mm512_maddubs_epi16(numbers.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX2
  return hn::Vec<Shorts>{_mm256_maddubs_epi16(numbers.raw, x.raw)};
#elif HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4
  return hn::Vec<Shorts>{_mm_maddubs_epi16(numbers.raw, x.raw)};
#else
  return pair_products(hn::BitCast(Shorts(), numbers), hn::BitCast(Shorts(), x));
#endif
}

HWY_INLINE hn::Vec<Words> sum_of_pairs(hn::Vec<Shorts> pairs) {
  const auto both = hn::BitCast(Words(), pairs);
  return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), hn::ShiftRight<16>(both));
}

// In 16-bit lanes as long as they hold them: 16 products are at most 16 * 15 * 128.
class NarrowProducts {
 public:
  HWY_INLINE explicit NarrowProducts(int32_t /*start*/ = 0) : sums_(hn::Zero(Shorts())) {}
  HWY_INLINE void add(hn::Vec<Bytes> numbers, hn::Vec<Words> x) {
    sums_ = hn::Add(sums_, narrow_pair_products(numbers, x));
  }
  HWY_INLINE hn::Vec<Words> total() const { return sum_of_pairs(sums_); }

 private:
  hn::Vec<Shorts> sums_;
};

// The 128 is taken off again: two products are at most 2 * 128 * 127, four need 32 bits.
class WideProducts {
 public:
  HWY_INLINE explicit WideProducts(int32_t /*start*/ = 0) : sums_(hn::Zero(Words())) {}
  HWY_INLINE void add(hn::Vec<Bytes> numbers, hn::Vec<Words> x) {
    const auto centered = hn::Xor(numbers, hn::Set(Bytes(), uint8_t{128}));
    sums_ = hn::Add(sums_, sum_of_pairs(pair_products(hn::BitCast(Shorts(), centered),
                                                      hn::BitCast(Shorts(), x))));
  }
  HWY_INLINE hn::Vec<Words> total() const { return sums_; }

 private:
  hn::Vec<Words> sums_;
};

#endif

// Four inputs of a row in every lane.
HWY_INLINE hn::Vec<Words> four_inputs(const ActivationGroup& x, int first) {
  int32_t four;
  std::memcpy(&four, x.numbers + first, sizeof(four));
  return hn::Set(Words(), four);
}

HWY_INLINE Vec halves(const uint16_t* from) {
  return load(reinterpret_cast<const hwy::float16_t*>(from));
}

// kVectors vectors of outputs from `output` on, kRows rows that lie `stride` groups apart. What
// follows adds products with 8 inputs, or 4 with 8 bits a weight, the i-th such part of a group.
template <int kRows, int kVectors>
HWY_INLINE void add_products(const WeightGroup4& weights, int output, int i,
                             const ActivationGroup* x, int64_t stride,
                             NarrowProducts (&products)[kRows][kVectors]) {
  const Bytes tag;
  const hn::Repartition<uint16_t, Tag> shorts;
  const auto half = hn::Set(tag, uint8_t{15});
  DMC_UNROLL for (int v = 0; v < kVectors; ++v) {
    const int at = output + v * kLanes;
    const auto both = hn::LoadU(tag, weights.numbers[at / 16][i] + at % 16 * 4);
    const auto low = hn::And(both, half);
    const auto high = hn::And(hn::BitCast(tag, hn::ShiftRight<4>(hn::BitCast(shorts, both))), half);
    DMC_UNROLL for (int r = 0; r < kRows; ++r) {
      products[r][v].add(low, four_inputs(x[r * stride], 8 * i));
      products[r][v].add(high, four_inputs(x[r * stride], 8 * i + 4));
    }
  }
}

template <int kRows, int kVectors>
HWY_INLINE void add_products(const WeightGroup8& weights, int output, int i,
                             const ActivationGroup* x, int64_t stride,
                             WideProducts (&products)[kRows][kVectors]) {
  DMC_UNROLL for (int v = 0; v < kVectors; ++v) {
    const int at = output + v * kLanes;
    const auto numbers = hn::LoadU(Bytes(), weights.numbers[at / 16][i] + at % 16 * 4);
    DMC_UNROLL for (int r = 0; r < kRows; ++r) {
      products[r][v].add(numbers, four_inputs(x[r * stride], 4 * i));
    }
  }
}

// The scale of vector v's outputs for inputs that share one, the n-th of such a group.
HWY_INLINE Vec scales_of(const WeightGroup4& weights, int output, int /*n*/) {
  return halves(weights.scales + output);
}
HWY_INLINE Vec scales_of(const WeightGroup8& weights, int output, int n) {
  return halves(weights.scales[n] + output);
}

template <class Group>
using ProductsOf =
    std::conditional_t<std::is_same_v<Group, WeightGroup4>, NarrowProducts, WideProducts>;

// One group: sums[r][v] += its products.
template <int kRows, int kVectors, int kSums, class Group>
HWY_INLINE void add_group(const Group& weights, int output, const ActivationGroup* x,
                          int64_t stride, Vec (&sums)[kRows][kSums], int first_sum) {
  constexpr int kScales = kGroup / Group::kInputsOfScale;
  constexpr int kParts = Group::kInputsOfScale / Group::kInputsAside;
  DMC_UNROLL for (int n = 0; n < kScales; ++n) {
    ProductsOf<Group> products[kRows][kVectors];
    if constexpr (std::is_same_v<Group, WeightGroup8>) {
      DMC_UNROLL for (int r = 0; r < kRows; ++r) {
        DMC_UNROLL for (auto& of_row : products[r]) {
          of_row = WideProducts(x[r * stride].offsets[n]);
        }
      }
    }
    DMC_UNROLL for (int i = 0; i < kParts; ++i) {
      add_products(weights, output, n * kParts + i, x, stride, products);
    }
    DMC_UNROLL for (int v = 0; v < kVectors; ++v) {
      const Vec scale = scales_of(weights, output + v * kLanes, n);
      DMC_UNROLL for (int r = 0; r < kRows; ++r) {
        Vec& sum = sums[r][first_sum + v];
        const Vec factor = hn::Mul(scale, hn::Set(Tag(), x[r * stride].scale));
        sum = hn::MulAdd(factor, hn::ConvertTo(Tag(), products[r][v].total()), sum);
      }
    }
  }
  DMC_UNROLL for (int v = 0; v < kVectors; ++v) {
    const Vec minimum = halves(weights.minima + output + v * kLanes);
    DMC_UNROLL for (int r = 0; r < kRows; ++r) {
      Vec& sum = sums[r][first_sum + v];
      sum = hn::MulAdd(minimum, hn::Set(Tag(), x[r * stride].sum), sum);
    }
  }
}

// The outputs of a block from `output` on, kSteps times kVectors vectors of them.
template <int kRows, int kVectors, int kSteps, class Group>
HWY_INLINE void tile(const Group* weights, int64_t groups, int output, const ActivationGroup* x,
                     float* to) {
  constexpr int64_t kAhead = 2;  // groups
  Vec sums[kRows][kVectors * kSteps];
  DMC_UNROLL for (auto& row : sums) { DMC_UNROLL for (Vec& sum : row) sum = hn::Zero(Tag()); }
  for (int64_t g = 0; g < groups; ++g) {
    const auto* const next = reinterpret_cast<const std::byte*>(weights + g + kAhead);
    DMC_UNROLL for (int step = 0; step < kSteps; ++step) {
      if constexpr (kSteps > 1) {  // one row: weights are read once, and from memory
        constexpr size_t kBytes = sizeof(Group) / kSteps;
        DMC_UNROLL for (size_t i = 0; i < kBytes; i += 64) hwy::Prefetch(next + step * kBytes + i);
      }
      add_group<kRows, kVectors>(weights[g], output + step * kVectors * kLanes, x + g, groups, sums,
                                 step * kVectors);
    }
  }
  DMC_UNROLL for (int r = 0; r < kRows; ++r) {
    DMC_UNROLL for (int v = 0; v < kVectors * kSteps; ++v) {
      hn::StoreU(sums[r][v], Tag(), to + r * kBlock + output + v * kLanes);
    }
  }
}

template <int kRows, class Group>
HWY_NOINLINE void some_rows(const Group* weights, int64_t groups, const ActivationGroup* x,
                            float* to) {
  if constexpr (kRows == 1) {
    tile<1, 1, kBlock / kLanes>(weights, groups, 0, x, to);
  } else {
    constexpr int kVectors = HWY_MAX_BYTES >= 64 ? 2 : 1;
    for (int output = 0; output < kBlock; output += kVectors * kLanes) {
      tile<kRows, kVectors, 1>(weights, groups, output, x, to);
    }
  }
}

// sums[rows][kBlock] of a block's outputs.
template <class Group>
void rows_of_block(const Group* weights, int64_t groups, const ActivationGroup* x, int64_t rows,
                   float* sums) {
  using SomeRows = void (*)(const Group*, int64_t, const ActivationGroup*, float*);
  constexpr SomeRows kSomeRows[] = {some_rows<1, Group>, some_rows<2, Group>, some_rows<3, Group>,
                                    some_rows<4, Group>, some_rows<5, Group>, some_rows<6, Group>};
  static_assert(std::size(kSomeRows) == kMostRowsAtOnce);
  kSomeRows[rows - 1](weights, groups, x, sums);
}

#endif

void GroupBlock(const PackedWeights& weights, int64_t block, const ActivationGroup* x, int64_t rows,
                const float* bias, float* y) {
  const int64_t groups = groups_of(weights.inputs()), outputs = weights.outputs();
  const int64_t first = block * kBlock, width = std::min<int64_t>(kBlock, outputs - first);
  for (int64_t begin = 0; begin < rows; begin += kMostRowsAtOnce) {
    const int64_t count = std::min<int64_t>(kMostRowsAtOnce, rows - begin);
    HWY_ALIGN float sums[kMostRowsAtOnce * kBlock] = {};
    with_group(weights.type(), [&](auto kind) {
      rows_of_block(weights.groups<decltype(kind)>(block), groups, x + begin * groups, count, sums);
    });
    for (int64_t r = 0; r < count; ++r) {
      float* const to = y + (begin + r) * outputs + first;
      for (int64_t i = 0; i < width; ++i) {
        to[i] = sums[r * kBlock + i] + (bias == nullptr ? 0.0f : bias[first + i]);
      }
    }
  }
}

// A group's numbers that lie in memory in full.
HWY_INLINE void round_group(const float* x, ActivationGroup* to) {
  const Tag tag;
  Vec largest = hn::Zero(tag), check = hn::Zero(tag);  // of infinities and NaNs `check` is NaN
  for (int i = 0; i < kGroup; i += kLanes) {
    const Vec part = load(x + i);
    largest = hn::Max(largest, hn::Abs(part));
    check = hn::MulAdd(part, hn::Zero(tag), check);
  }
  const float most = hn::GetLane(hn::MaxOfLanes(tag, largest));
  const float nothing = hn::GetLane(hn::SumOfLanes(tag, check));
  const Vec factor = hn::Set(tag, most > 0.0f ? 127.0f / most : 0.0f);
  const Words words;
  decltype(hn::Zero(words)) totals[] = {hn::Zero(words), hn::Zero(words)};  // of halves
  for (int i = 0; i < kGroup; i += kLanes) {
    const auto numbers = hn::NearestInt(hn::Mul(load(x + i), factor));
    auto& total = totals[i / (kGroup / 2)];
    total = hn::Add(total, numbers);
    hn::StoreU(hn::DemoteTo(hn::Rebind<int8_t, Tag>(), numbers), hn::Rebind<int8_t, Tag>(),
               to->numbers + i);
  }
  to->scale = most / 127.0f + nothing;
  int32_t both = 0;
  for (int half = 0; half < 2; ++half) {
    const int32_t total = hn::GetLane(hn::SumOfLanes(words, totals[half]));
    to->offsets[half] = -128 * total;
    both += total;
  }
  to->sum = to->scale * static_cast<float>(both);
}

void RoundActivations(const float* x, int64_t inputs, ActivationGroup* to) {
  int64_t i = 0;
  for (; i + kGroup <= inputs; i += kGroup) round_group(x + i, to++);
  if (i == inputs) return;
  float rest[kGroup] = {};
  std::copy(x + i, x + inputs, rest);
  round_group(rest, to);
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(GroupBlock);
HWY_EXPORT(RoundActivations);

void group_block(const PackedWeights& weights, int64_t block, const ActivationGroup* x,
                 int64_t rows, const float* bias, float* y) {
  HWY_DYNAMIC_DISPATCH(GroupBlock)(weights, block, x, rows, bias, y);
}

void round_activations(const float* x, int64_t inputs, ActivationGroup* to) {
  HWY_DYNAMIC_DISPATCH(RoundActivations)(x, inputs, to);
}

}  // namespace dmc::kernels::cpu
#endif

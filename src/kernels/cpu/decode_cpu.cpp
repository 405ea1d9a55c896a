// Decoding: a few queries, every slot read once, at the speed of memory.
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/cpu/attention_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/product-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

// Slots between two updates of the softmax state, across pages.
constexpr int64_t kStretch = 64;

// A run of slots within one page.
struct Run {
  int32_t page;
  int64_t slot, count, offset;  // offset: of its first slot in the stretch
};

struct Stretch {
  int64_t first, size;  // slots; size is 0 behind the last one
  size_t count;         // runs
  std::array<Run, kStretch> runs;

  void cut(const SlotRange& slots, int64_t page_slots, int64_t begin) {
    first = begin;
    size = std::min(kStretch, slots.last - begin);
    count = 0;
    for (int64_t slot = first; slot < first + size; slot += runs[count++].count) {
      const int64_t at = slot % page_slots;
      runs[count] = {slots.pages[slot / page_slots], at,
                     std::min(page_slots - at, first + size - slot), slot - first};
    }
  }
};

// Asks memory for what will be needed later; from: null for nothing. Pages lie anywhere, so the
// hardware cannot guess the next one. Loops ask for a few lines in each round: all at once would
// stop them until the lines came.
HWY_INLINE void ask_for(const void* from, int64_t bytes) {
  constexpr int64_t kLine = 64;
  if (from == nullptr) return;
  for (int64_t i = 0; i < bytes; i += kLine) {
    hwy::Prefetch(static_cast<const std::byte*>(from) + i);
  }
}

// `offset` further, where there is anything to ask for.
HWY_INLINE const std::byte* further(const std::byte* from, int64_t offset) {
  return from == nullptr ? nullptr : from + offset;
}

HWY_INLINE void ask_for_scales(const PoolView& pool, const Run& run) {
  const int64_t bytes = run.count * int64_t{sizeof(float)};
  ask_for(pool.key_scales(run.page, run.slot), bytes);
  ask_for(pool.value_scales(run.page, run.slot), bytes);
}

// At once, where there is nothing to compute meanwhile.
HWY_INLINE void ask_for_keys(const PoolView& pool, const Run& run) {
  ask_for(pool.keys<std::byte>(run.page, run.slot), run.count * pool.format.row_bytes());
  if (pool.format.scaled()) ask_for_scales(pool, run);
}

// Calls fn(count, first) for all queries of a group, 4, 2 or 1 at a time: as a constant, because
// their sums are kept in registers.
template <class Fn>
HWY_INLINE void by_queries(int group, Fn&& fn) {
  int g = 0;
  for (; g + 4 <= group; g += 4) fn(std::integral_constant<int, 4>(), g);
  for (; g + 2 <= group; g += 2) fn(std::integral_constant<int, 2>(), g);
  for (; g < group; ++g) fn(std::integral_constant<int, 1>(), g);
}

// kDim is the head size where it is known when compiling, else 0.

// --- scores of queries and keys in f32, bf16, f16 ----------------------------------------------

struct FloatQueries {
  const float* rows;  // [group][d]
  float scale;
};

// scores[g][s] = scale * q_g . key_s for kQueries queries and kKeys keys, one product a lane.
template <int kDim, int kQueries, int kKeys, class T>
HWY_INLINE void score_tile(const FloatQueries& queries, int first_query, const T* HWY_RESTRICT keys,
                           int head_dim, const std::byte* ahead, float* HWY_RESTRICT scores,
                           int64_t stride) {
  static_assert(kQueries * kKeys == kLanes);
  const Tag tag;
  const int d = kDim > 0 ? kDim : head_dim;
  const float* const q = queries.rows + first_query * d;
  Vec products[kQueries * kKeys];  // apart from `sums`, or the compiler keeps them in memory
  DMC_UNROLL for (Vec& sum : products) sum = hn::Zero(tag);
  const int whole = d - d % kLanes;
  constexpr int kRows = kKeys < 4 ? kKeys : 4;  // read side by side: memory likes few streams
  DMC_UNROLL for (int first = 0; first < kKeys; first += kRows) {
    for (int i = 0; i < whole; i += kLanes) {
      ask_for(further(ahead, (first * d + i * kRows) * int64_t{sizeof(T)}),
              kRows * kLanes * sizeof(T));
      Vec part[kQueries];
      DMC_UNROLL for (int g = 0; g < kQueries; ++g) part[g] = load(q + g * d + i);
      DMC_UNROLL for (int s = first; s < first + kRows; ++s) {
        const Vec key = load(keys + s * d + i);
        DMC_UNROLL for (int g = 0; g < kQueries; ++g) {
          products[g * kKeys + s] = hn::MulAdd(part[g], key, products[g * kKeys + s]);
        }
      }
    }
  }
  Vec sums[kQueries * kKeys];
  DMC_UNROLL for (int n = 0; n < kQueries * kKeys; ++n) sums[n] = products[n];
  HWY_ALIGN float totals[kLanes];
  hn::Store(sums_of(sums), tag, totals);
  for (int g = 0; g < kQueries; ++g) {
    for (int s = 0; s < kKeys; ++s) {
      float total = totals[g * kKeys + s];
      for (int tail = whole; tail < d; ++tail)
        total += q[g * d + tail] * load_one(keys + s * d + tail);
      scores[g * stride + s] = queries.scale * total;
    }
  }
}

// --- scores with 8-bit keys: whole numbers on both sides ---------------------------------------

// A query rounded to 14 bits (finer than the keys by far), so that a key is never widened to
// floats: pairs of 16-bit products are summed in 32 bits, and |sum| < d * 127 * 8191 < 2^31.
struct IntegerQueries {
  std::vector<int16_t> rows;  // [group][d]
  std::vector<float> scales;  // [group], with the softmax's
};

IntegerQueries to_integers(const float* q, int group, int d, float scale) {
  constexpr float kLargest = 8191.0f;
  IntegerQueries result{std::vector<int16_t>(static_cast<size_t>(group) * d),
                        std::vector<float>(static_cast<size_t>(group))};
  for (int g = 0; g < group; ++g) {
    float largest = 0.0f;
    for (int i = 0; i < d; ++i) largest = std::max(largest, std::abs(q[g * d + i]));
    const float factor = largest > 0.0f ? kLargest / largest : 0.0f;
    for (int i = 0; i < d; ++i) {
      result.rows[g * d + i] = static_cast<int16_t>(std::lrint(q[g * d + i] * factor));
    }
    result.scales[g] = scale * largest / kLargest;
  }
  return result;
}

#if HWY_TARGET != HWY_SCALAR
template <int kDim, int kQueries, int kKeys>
HWY_INLINE void score_tile(const IntegerQueries& queries, int first_query,
                           const int8_t* HWY_RESTRICT keys, int head_dim, const std::byte* ahead,
                           float* HWY_RESTRICT scores, int64_t stride) {
  const Tag tag;
  const hn::RebindToSigned<Tag> sums_tag;
  const hn::Repartition<int16_t, Tag> wide_tag;
  const hn::Rebind<int8_t, decltype(wide_tag)> narrow_tag;
  using Sum = hn::Vec<decltype(sums_tag)>;
  const int d = kDim > 0 ? kDim : head_dim;
  const int16_t* const q = queries.rows.data() + first_query * d;
  Sum low[kQueries * kKeys], high[kQueries * kKeys];
  DMC_UNROLL for (int n = 0; n < kQueries * kKeys; ++n) low[n] = high[n] = hn::Zero(sums_tag);
  int i = 0;
  for (; i + 2 * kLanes <= d; i += 2 * kLanes) {
    ask_for(further(ahead, i * kKeys), 2 * kKeys * kLanes);
    hn::Vec<decltype(wide_tag)> key[kKeys];
    DMC_UNROLL for (int s = 0; s < kKeys; ++s) {
      key[s] = hn::PromoteTo(wide_tag, hn::LoadU(narrow_tag, keys + s * d + i));
    }
    DMC_UNROLL for (int g = 0; g < kQueries; ++g) {
      const auto part = hn::LoadU(wide_tag, q + g * d + i);
      DMC_UNROLL for (int s = 0; s < kKeys; ++s) {
        const int n = g * kKeys + s;
        low[n] = hn::ReorderWidenMulAccumulate(sums_tag, part, key[s], low[n], high[n]);
      }
    }
  }
  Vec sums[kQueries * kKeys];
  DMC_UNROLL for (int n = 0; n < kQueries * kKeys; ++n) {
    sums[n] = hn::ConvertTo(tag, hn::Add(low[n], high[n]));
  }
  HWY_ALIGN float totals[kLanes];
  hn::Store(sums_of(sums), tag, totals);
  for (int g = 0; g < kQueries; ++g) {
    for (int s = 0; s < kKeys; ++s) {
      float total = totals[g * kKeys + s];
      for (int tail = i; tail < d; ++tail) {
        total += static_cast<float>(q[g * d + tail] * keys[s * d + tail]);
      }
      scores[g * stride + s] = queries.scales[first_query + g] * total;
    }
  }
}
#endif

// --- one query, one key: what does not fill a tile -----------------------------------------------

template <class T>
HWY_INLINE float score_one(const FloatQueries& queries, int query, const T* key, int d) {
  const float* const q = queries.rows + query * d;
  Vec sum = hn::Zero(Tag());
  int i = 0;
  for (; i + kLanes <= d; i += kLanes) sum = hn::MulAdd(load(q + i), load(key + i), sum);
  float total = hn::GetLane(hn::SumOfLanes(Tag(), sum));
  for (; i < d; ++i) total += q[i] * load_one(key + i);
  return queries.scale * total;
}

HWY_INLINE float score_one(const IntegerQueries& queries, int query, const int8_t* key, int d) {
  const int16_t* const q = queries.rows.data() + query * d;
  int32_t total = 0;
  for (int i = 0; i < d; ++i) total += q[i] * key[i];
  return queries.scales[query] * static_cast<float>(total);
}

// The form of the queries that goes with keys of type T.
template <class T>
HWY_INLINE auto make_queries(const float* q, int group, int d, float scale) {
  if constexpr (std::is_same_v<T, int8_t>) {
    return to_integers(q, group, d, scale);
  } else {
    return FloatQueries{q, scale};
  }
}

// Scores of kQueries queries with the keys of a run. `ahead`: the rows to be asked for meanwhile.
template <int kDim, int kQueries, class T, class Queries>
HWY_INLINE void score_run(const PoolView& pool, const Run& run, const Queries& queries,
                          int first_query, const std::byte* ahead, float* scores) {
  constexpr int kKeys = kLanes / kQueries;  // 0: a tile would need longer vectors
  const int d = pool.format.head_dim;
  const T* const keys = pool.keys<const T>(run.page, run.slot);
  int64_t s = 0;
  if constexpr (kLanes > 1 && kKeys > 0) {
    const int64_t row_bytes = pool.format.row_bytes();
    for (; s + kKeys <= run.count; s += kKeys) {
      score_tile<kDim, kQueries, kKeys>(queries, first_query, keys + s * d, d,
                                        further(ahead, s * row_bytes), scores + run.offset + s,
                                        kStretch);
    }
  }
  for (; s < run.count; ++s) {
    for (int g = 0; g < kQueries; ++g) {
      scores[g * kStretch + run.offset + s] = score_one(queries, first_query + g, keys + s * d, d);
    }
  }
}

// Multiplies the columns of a run, in rows [group][kStretch], by its slots' scales, of numbers of
// type T.
template <class T>
HWY_INLINE void scale_slots(const float* HWY_RESTRICT scales, const Run& run, int group,
                            float* HWY_RESTRICT rows) {
  for (int g = 0; g < group; ++g) {
    float* const row = rows + g * kStretch + run.offset;
    for (int64_t s = 0; s < run.count; ++s) row[s] *= scales[s] * kUnit<T>;
  }
}

// Adds its slots' masses to them.
HWY_INLINE void add_masses(const float* masses, const Run& run, int group, float* rows) {
  for (int g = 0; g < group; ++g) add_to(rows + g * kStretch + run.offset, masses, run.count);
}

template <int kDim, class T, class Queries>
HWY_INLINE void score_group(const PoolView& pool, const Run& run, const Queries& queries, int group,
                            const std::byte* ahead, float* scores) {
  by_queries(group, [&](auto count, int g) HWY_ATTR {
    score_run<kDim, decltype(count)::value, T>(pool, run, queries, g, g == 0 ? ahead : nullptr,
                                               scores + g * kStretch);
  });
  if (pool.format.scaled()) {
    scale_slots<T>(pool.key_scales(run.page, run.slot), run, group, scores);
  }
  if (pool.format.masses) add_masses(pool.masses(run.page, run.slot), run, group, scores);
}

// out[g][c..] += sum_s weights[g][s] * value_s[c..] for kQueries queries and kWidth vectors of
// channels from c on.
template <int kQueries, int kWidth, class T>
HWY_INLINE void value_tile(const float* HWY_RESTRICT weights, const T* HWY_RESTRICT values, int d,
                           int64_t count, const std::byte* ahead, float* HWY_RESTRICT out) {
  const Tag tag;
  Vec sums[kQueries][kWidth];
  DMC_UNROLL for (int g = 0; g < kQueries; ++g) {
    DMC_UNROLL for (int w = 0; w < kWidth; ++w) sums[g][w] = load(out + g * d + w * kLanes);
  }
  for (int64_t s = 0; s < count; ++s) {
    ask_for(further(ahead, s * d * int64_t{sizeof(T)}), kWidth * kLanes * sizeof(T));
    Vec factors[kQueries];
    DMC_UNROLL for (int g = 0; g < kQueries; ++g) factors[g] =
        hn::Set(tag, weights[g * kStretch + s]);
    DMC_UNROLL for (int w = 0; w < kWidth; ++w) {
      const Vec value = load(values + s * d + w * kLanes);
      DMC_UNROLL for (int g = 0; g < kQueries; ++g) sums[g][w] =
          hn::MulAdd(factors[g], value, sums[g][w]);
    }
  }
  DMC_UNROLL for (int g = 0; g < kQueries; ++g) {
    DMC_UNROLL for (int w = 0; w < kWidth; ++w)
        hn::StoreU(sums[g][w], tag, out + g * d + w * kLanes);
  }
}

// All channels of kQueries queries.
template <int kDim, int kQueries, class T>
HWY_INLINE void add_rows(const float* weights, const T* values, int head_dim, int64_t count,
                         const std::byte* ahead, float* out) {
  constexpr int kMost = kQueries == 1 ? 8 : HWY_MAX_BYTES >= 64 ? 16 / kQueries : 8 / kQueries;
  constexpr int kWidth = kDim > 0 ? std::min(kMost, kDim / kLanes) : kMost;
  const int d = kDim > 0 ? kDim : head_dim;
  int c = 0;
  for (; c + kWidth * kLanes <= d; c += kWidth * kLanes) {
    value_tile<kQueries, kWidth>(weights, values + c, d, count,
                                 further(ahead, c * int64_t{sizeof(T)}), out + c);
  }
  for (; c + kLanes <= d; c += kLanes) {
    value_tile<kQueries, 1>(weights, values + c, d, count, further(ahead, c * int64_t{sizeof(T)}),
                            out + c);
  }
  for (; c < d; ++c) {
    for (int g = 0; g < kQueries; ++g) {
      for (int64_t s = 0; s < count; ++s) {
        out[g * d + c] += weights[g * kStretch + s] * load_one(values + s * d + c);
      }
    }
  }
}

// out[g] += sum_s weights[g][s] * value_s over a run.
template <int kDim, class T>
HWY_INLINE void add_values(const PoolView& pool, const Run& run, float* weights, int group,
                           const std::byte* ahead, float* out) {
  if (pool.format.scaled()) {
    scale_slots<T>(pool.value_scales(run.page, run.slot), run, group, weights);
  }
  const int d = pool.format.head_dim;
  const T* const values = pool.values<const T>(run.page, run.slot);
  by_queries(group, [&](auto count, int g) HWY_ATTR {
    add_rows<kDim, decltype(count)::value>(weights + g * kStretch + run.offset, values, d,
                                           run.count, g == 0 ? ahead : nullptr, out + g * d);
  });
}

template <int kDim, class T>
HWY_NOINLINE void attend_slots_of(const PoolView& pool, const SlotRange& slots, const float* q,
                                  int group, float scale, AttnState* states, float* out) {
  const int d = pool.format.head_dim;
  const int64_t P = pool.format.page_slots;
  const auto queries = make_queries<T>(q, group, d, scale);
  std::vector<float> scores(static_cast<size_t>(group) * kStretch);
  std::array<Stretch, 2> stretches;
  Stretch *now = &stretches[0], *next = &stretches[1];
  now->cut(slots, P, slots.first);
  for (size_t n = 0; n < now->count; ++n) ask_for_keys(pool, now->runs[n]);
  for (; now->size > 0; std::swap(now, next)) {
    for (size_t n = 0; n < now->count; ++n) {
      const Run& run = now->runs[n];
      score_group<kDim, T>(pool, run, queries, group, pool.values<std::byte>(run.page, run.slot),
                           scores.data());
    }
    for (int g = 0; g < group; ++g) {
      float* const row = &scores[g * kStretch];
      if (slots.scores != nullptr) {
        std::copy_n(row, now->size, slots.scores + g * slots.score_stride + now->first);
      }
      take_scores(row, now->size, d, &states[g], out + g * d);
    }
    next->cut(slots, P, now->first + now->size);
    for (size_t n = 0; n < now->count; ++n) {
      const std::byte* keys = nullptr;
      if (n < next->count) {
        keys = pool.keys<std::byte>(next->runs[n].page, next->runs[n].slot);
        if (pool.format.scaled()) ask_for_scales(pool, next->runs[n]);
      }
      add_values<kDim, T>(pool, now->runs[n], scores.data(), group, keys, out);
    }
  }
}

void AttendSlots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                 float scale, AttnState* states, float* out) {
  with_slot_element_type(pool.format.type, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    switch (pool.format.head_dim) {  // the common ones: constant strides, unrolled loops
      case 64:
        return attend_slots_of<64, T>(pool, slots, q, group, scale, states, out);
      case 128:
        return attend_slots_of<128, T>(pool, slots, q, group, scale, states, out);
      default:
        return attend_slots_of<0, T>(pool, slots, q, group, scale, states, out);
    }
  });
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(AttendSlots);

void attend_slots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                  float scale, AttnState* states, float* out) {
  HWY_DYNAMIC_DISPATCH(AttendSlots)(pool, slots, q, group, scale, states, out);
}

}  // namespace dmc::kernels::cpu
#endif

// Prefill: many queries, blocks of slots used again and again.
#include <algorithm>
#include <vector>

#include "kernels/cpu/attention_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/prefill_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/cpu/product-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

// Slots laid out at once: their keys and values stay in the L1 and L2 caches while all rows of a
// tile pass over them.
constexpr int64_t kBlockSlots = 64;
constexpr float kHidden = -1e30f;  // the score of a slot that a row must not see

// A block of slots in f32: keys transposed, so that scores need no sums across lanes.
struct Block {
  std::vector<float> keys;    // [head_dim][kBlockSlots]
  std::vector<float> values;  // [kBlockSlots][head_dim]
  std::vector<float> masses;  // [kBlockSlots]
  std::vector<float> row;     // one key

  explicit Block(int head_dim)
      : keys(static_cast<size_t>(head_dim) * kBlockSlots),
        values(keys.size()),
        masses(kBlockSlots),
        row(head_dim) {}

  template <class T>
  static void widen(const T* from, int n, float scale, float* to) {
    scale *= kUnit<T>;
    const Vec factor = hn::Set(Tag(), scale);
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      hn::StoreU(hn::Mul(factor, load(from + i)), Tag(), to + i);
    }
    for (; i < n; ++i) to[i] = scale * load_one(from + i);
  }

  // Slots that a short block lacks keep old numbers: their weights are 0.
  template <class T>
  void load_slots(const PoolView& pool, const int32_t* pages, int64_t first, int64_t count) {
    const int d = pool.format.head_dim;
    const bool scaled = pool.format.scaled();
    for (int64_t s = 0; s < count; ++s) {
      const int32_t page = pages[(first + s) / pool.format.page_slots];
      const int64_t slot = (first + s) % pool.format.page_slots;
      widen(pool.keys<const T>(page, slot), d, scaled ? *pool.key_scales(page, slot) : 1.0f,
            row.data());
      widen(pool.values<const T>(page, slot), d, scaled ? *pool.value_scales(page, slot) : 1.0f,
            &values[s * d]);
      for (int i = 0; i < d; ++i) keys[i * kBlockSlots + s] = row[i];
      if (pool.format.masses) masses[s] = *pool.masses(page, slot);
    }
  }
};

template <class T>
HWY_NOINLINE void attend_rows_of(const PoolView& pool, const SlotRange& slots, const float* q,
                                 int64_t rows, const int64_t* visible, float scale,
                                 AttnState* states, float* out) {
  const int d = pool.format.head_dim;
  Block block(d);
  std::vector<float> scores(static_cast<size_t>(rows) * kBlockSlots);
  for (int64_t first = slots.first; first < slots.last; first += kBlockSlots) {
    const int64_t count = std::min(kBlockSlots, slots.last - first);
    // visible never falls, so the rows that see anything of this block are the last ones.
    const int64_t begin = std::upper_bound(visible, visible + rows, first) - visible;
    if (begin == rows) break;
    block.load_slots<T>(pool, slots.pages, first, count);
    product(Left<float>{q + begin * d, d}, block.keys.data(), kBlockSlots, rows - begin, d,
            &scores[begin * kBlockSlots], kBlockSlots, kBlockSlots, /*add=*/false);
    for (int64_t r = begin; r < rows; ++r) {
      float* const row = &scores[r * kBlockSlots];
      scale_by(row, scale, kBlockSlots);
      if (pool.format.masses) add_to(row, block.masses.data(), kBlockSlots);
      std::fill(row + std::min(count, visible[r] - first), row + kBlockSlots, kHidden);
      take_scores(row, kBlockSlots, d, &states[r], out + r * d);
    }
    product(Left<float>{&scores[begin * kBlockSlots], kBlockSlots}, block.values.data(), d,
            rows - begin, kBlockSlots, out + begin * d, d, d, /*add=*/true);
  }
}

void AttendRows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                const int64_t* visible, float scale, AttnState* states, float* out) {
  with_slot_element_type(pool.format.type, [&](auto element) HWY_ATTR {
    attend_rows_of<decltype(element)>(pool, slots, q, rows, visible, scale, states, out);
  });
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(AttendRows);

void attend_rows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                 const int64_t* visible, float scale, AttnState* states, float* out) {
  HWY_DYNAMIC_DISPATCH(AttendRows)(pool, slots, q, rows, visible, scale, states, out);
}

}  // namespace dmc::kernels::cpu
#endif

// How closed slots lie in memory. A page holds the rotated keys of `page_slots` slots, row by row,
// then their values, then (8-bit pages only) one scale per key and one per value, then (where asked
// for) one mass per slot. Closed slots are written once, so they are rounded once; the open slot
// stays in f32 outside the pages.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace dmc::kernels {

struct PageFormat {
  int page_slots = 0;
  int head_dim = 0;
  // kF32, kBF16, kF16, or, with a scale per slot, keys and values apart, kI8 or kF8E4M3.
  DType type = DType::kF32;
  bool masses = false;  // each slot has a number that is added to its scores

  bool scaled() const { return is_scaled(type); }
  int64_t row_bytes() const { return head_dim * static_cast<int64_t>(dtype_size(type)); }
  int64_t bytes() const {  // of a page
    constexpr int64_t kFloat = sizeof(float);
    return page_slots * (2 * row_bytes() + (scaled() ? 2 * kFloat : 0) + (masses ? kFloat : 0));
  }
};

struct PoolView {
  std::byte* const* pages = nullptr;  // by page id, each aligned to 4 bytes at least
  PageFormat format;

  template <class T>
  T* keys(int32_t page, int64_t slot) const {
    return reinterpret_cast<T*>(pages[page] + slot * format.row_bytes());
  }
  template <class T>
  T* values(int32_t page, int64_t slot) const {
    return keys<T>(page, format.page_slots + slot);
  }
  float* key_scales(int32_t page, int64_t slot) const {
    return reinterpret_cast<float*>(keys<std::byte>(page, int64_t{2} * format.page_slots)) + slot;
  }
  float* value_scales(int32_t page, int64_t slot) const {
    return key_scales(page, format.page_slots + slot);
  }
  float* masses(int32_t page, int64_t slot) const {
    return key_scales(page, (format.scaled() ? 2 * format.page_slots : 0) + slot);
  }
};

// Rounds key and value [head_dim] into a slot (kernels/rounding.h). mass: ignored by pages that
// have none.
void write_slot(const PoolView& pool, int32_t page, int64_t slot, const float* key,
                const float* value, float mass = 0.0f);
// What the slot holds, in f32.
void read_slot(const PoolView& pool, int32_t page, int64_t slot, float* key, float* value);
// Copies a slot as it is.
void copy_slot(const PoolView& pool, int32_t from_page, int64_t from, int32_t to_page, int64_t to);

}  // namespace dmc::kernels

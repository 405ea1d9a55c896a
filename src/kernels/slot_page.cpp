#include "kernels/slot_page.h"

#include <cstring>

#include "kernels/rounding.h"

namespace dmc::kernels {
void write_slot(const PoolView& pool, int32_t page, int64_t slot, const float* key,
                const float* value, float mass) {
  const PageFormat& f = pool.format;
  round_row(key, f.head_dim, f.type, pool.keys<std::byte>(page, slot), pool.key_scales(page, slot));
  round_row(value, f.head_dim, f.type, pool.values<std::byte>(page, slot),
            pool.value_scales(page, slot));
  if (f.masses) *pool.masses(page, slot) = mass;
}

void read_slot(const PoolView& pool, int32_t page, int64_t slot, float* key, float* value) {
  const PageFormat& f = pool.format;
  widen_row(pool.keys<std::byte>(page, slot), f.head_dim, f.type, pool.key_scales(page, slot), key);
  widen_row(pool.values<std::byte>(page, slot), f.head_dim, f.type, pool.value_scales(page, slot),
            value);
}

void copy_slot(const PoolView& pool, int32_t from_page, int64_t from, int32_t to_page, int64_t to) {
  const auto bytes = static_cast<size_t>(pool.format.row_bytes());
  std::memcpy(pool.keys<std::byte>(to_page, to), pool.keys<std::byte>(from_page, from), bytes);
  std::memcpy(pool.values<std::byte>(to_page, to), pool.values<std::byte>(from_page, from), bytes);
  if (pool.format.masses) *pool.masses(to_page, to) = *pool.masses(from_page, from);
  if (!pool.format.scaled()) return;
  *pool.key_scales(to_page, to) = *pool.key_scales(from_page, from);
  *pool.value_scales(to_page, to) = *pool.value_scales(from_page, from);
}

}  // namespace dmc::kernels

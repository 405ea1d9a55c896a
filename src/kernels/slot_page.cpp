#include "kernels/slot_page.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace dmc::kernels {
namespace {

constexpr float kLargestF16 = 65504.0f;

void round_to_i8(const float* from, int n, int8_t* to, float* scale) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(from[i]));
  *scale = largest / 127.0f;
  const float factor = largest > 0.0f ? 127.0f / largest : 0.0f;
  for (int i = 0; i < n; ++i) to[i] = static_cast<int8_t>(std::lrint(from[i] * factor));
}

void round_row(const float* from, int n, DType type, std::byte* to, float* scale) {
  auto* const half = reinterpret_cast<uint16_t*>(to);
  switch (type) {
    case DType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kBF16:
      for (int i = 0; i < n; ++i) half[i] = f32_to_bf16(from[i]);
      return;
    case DType::kF16:
      for (int i = 0; i < n; ++i) {
        half[i] = f32_to_f16(std::clamp(from[i], -kLargestF16, kLargestF16));
      }
      return;
    case DType::kI8:
      round_to_i8(from, n, reinterpret_cast<int8_t*>(to), scale);
      return;
    default:
      DMC_CHECK(!"a slot type");
  }
}

void widen_row(const std::byte* from, int n, DType type, const float* scale, float* to) {
  const auto* const half = reinterpret_cast<const uint16_t*>(from);
  switch (type) {
    case DType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kBF16:
      for (int i = 0; i < n; ++i) to[i] = bf16_to_f32(half[i]);
      return;
    case DType::kF16:
      for (int i = 0; i < n; ++i) to[i] = f16_to_f32(half[i]);
      return;
    case DType::kI8:
      for (int i = 0; i < n; ++i) to[i] = *scale * static_cast<float>(static_cast<int8_t>(from[i]));
      return;
    default:
      DMC_CHECK(!"a slot type");
  }
}

}  // namespace

void write_slot(const PoolView& pool, int32_t page, int64_t slot, const float* key,
                const float* value) {
  const PageFormat& f = pool.format;
  round_row(key, f.head_dim, f.type, pool.keys<std::byte>(page, slot), pool.key_scales(page, slot));
  round_row(value, f.head_dim, f.type, pool.values<std::byte>(page, slot),
            pool.value_scales(page, slot));
}

void read_slot(const PoolView& pool, int32_t page, int64_t slot, float* key, float* value) {
  const PageFormat& f = pool.format;
  widen_row(pool.keys<std::byte>(page, slot), f.head_dim, f.type, pool.key_scales(page, slot), key);
  widen_row(pool.values<std::byte>(page, slot), f.head_dim, f.type, pool.value_scales(page, slot),
            value);
}

}  // namespace dmc::kernels

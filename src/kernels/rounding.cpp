#include "kernels/rounding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace dmc::kernels {
namespace {

constexpr float kLargestF16 = 65504.0f, kLargestI8 = 127.0f, kLargestF8 = 448.0f;

int8_t to_i8(float x) { return static_cast<int8_t>(std::lrint(x)); }

// The largest magnitude; NaN if not all are finite.
float largest_of(const float* from, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(from[i])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(from[i]));
  }
  return largest;
}

template <auto kRound, class T>
void round_scaled(const float* from, int64_t n, float largest_number, T* to, float* scale) {
  const float largest = largest_of(from, n);
  *scale = largest / largest_number;
  const float factor = largest > 0.0f ? largest_number / largest : 0.0f;
  for (int64_t i = 0; i < n; ++i) to[i] = factor > 0.0f ? kRound(from[i] * factor) : T{0};
}

}  // namespace

void round_row(const float* from, int64_t n, DType type, std::byte* to, float* scale) {
  auto* const half = reinterpret_cast<uint16_t*>(to);
  switch (type) {
    case DType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) half[i] = f32_to_bf16(from[i]);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        half[i] = f32_to_f16(std::clamp(from[i], -kLargestF16, kLargestF16));
      }
      return;
    case DType::kI8:
      return round_scaled<to_i8>(from, n, kLargestI8, reinterpret_cast<int8_t*>(to), scale);
    case DType::kF8E4M3:
      return round_scaled<f32_to_f8>(from, n, kLargestF8, reinterpret_cast<uint8_t*>(to), scale);
    default:
      DMC_CHECK(!"a type that slots and weights have");
  }
}

void widen_row(const std::byte* from, int64_t n, DType type, const float* scale, float* to) {
  switch (type) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
      return widen_floats(from, n, type, to);
    case DType::kI8:
      for (int64_t i = 0; i < n; ++i) {
        to[i] = *scale * static_cast<float>(static_cast<int8_t>(from[i]));
      }
      return;
    case DType::kF8E4M3:
      for (int64_t i = 0; i < n; ++i) to[i] = *scale * f8_to_f32(static_cast<uint8_t>(from[i]));
      return;
    default:
      DMC_CHECK(!"a type that slots and weights have");
  }
}

}  // namespace dmc::kernels

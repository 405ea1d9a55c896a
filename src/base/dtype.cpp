#include "base/dtype.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/named.h"

namespace dmc {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  size_t size;
};
constexpr std::array kTypes = {
    Entry{DType::kF32, "F32", 4},   Entry{DType::kF16, "F16", 2},
    Entry{DType::kBF16, "BF16", 2}, Entry{DType::kI64, "I64", 8},
    Entry{DType::kI32, "I32", 4},   Entry{DType::kI8, "I8", 1},
    Entry{DType::kU8, "U8", 1},     Entry{DType::kF8E4M3, "F8_E4M3", 1},
    Entry{DType::kI4, "I4", 0},     Entry{DType::kI8Groups, "I8 in groups", 0},
};

}  // namespace

size_t dtype_size(DType dtype) { return kTypes[static_cast<size_t>(dtype)].size; }
std::string_view dtype_name(DType dtype) { return kTypes[static_cast<size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  const Entry* const entry = find_named(kTypes, name);
  return entry == nullptr || entry->size == 0 ? std::nullopt : std::optional(entry->dtype);
}

namespace {

// Without branches, so that the compiler does several at once. 2^112 moves the exponent from the
// bias of f16 to that of f32; subnormal numbers come out exact, too.
float widen_f16(uint16_t bits) {
  const float shifted = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) | special | (bits & 0x8000u) << 16);
}

template <float (*kWiden)(uint16_t)>
void widen_halves(const std::byte* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, from + i * int64_t{sizeof(half)}, sizeof(half));
    to[i] = kWiden(half);
  }
}

}  // namespace

void widen_floats(const std::byte* from, int64_t n, DType dtype, float* to) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kBF16:
      return widen_halves<bf16_to_f32>(from, n, to);
    case DType::kF16:
      return widen_halves<widen_f16>(from, n, to);
    default:
      DMC_CHECK(!"a type of floating-point numbers");
  }
}

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t f32_to_bf16(float value) {
  if (std::isnan(value)) return 0x7fc0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0x7f800000u : (exponent + 112) << 23;
  return std::bit_cast<float>(sign | wide | (mantissa << 13));
}

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  if (std::isnan(value)) return sign | 0x7e00;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return sign | 0x7c00;  // rounds to infinity
  if (magnitude < 0x1.0p-14f) {                     // subnormal: multiples of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 24)));
  }
  const uint32_t rounded = (bits & 0x7fffffff) + 0xfff + ((bits >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

float f8_to_f32(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80) << 24;
  const uint32_t magnitude = bits & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude < 8) {  // zero and subnormals: multiples of 2^-9
    return std::copysign(std::ldexp(static_cast<float>(magnitude), -9), sign != 0 ? -1.0f : 1.0f);
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
}

uint8_t f32_to_f8(float value) {
  constexpr float kLargest = 448.0f;
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return sign | 0x7f;
  const float magnitude = std::min(std::fabs(value), kLargest);
  if (magnitude < 0x1.0p-6f) {  // subnormal: multiples of 2^-9
    return sign | static_cast<uint8_t>(std::nearbyint(std::ldexp(magnitude, 9)));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = bits + 0x7ffff + ((bits >> 20) & 1);
  return sign | static_cast<uint8_t>((rounded - (120u << 23)) >> 20);
}

}  // namespace dmc

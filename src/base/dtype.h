// Element types of tensors in files and caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace dmc {

// kF8E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa; up to 448, NaN but no infinity (OCP
// 8-bit floating point, "e4m3fn"). kI4 and kI8Groups: numbers of 4 and 8 bits
// in groups, which are weights in memory only (kernels/groups.h) and no tensor's elements.
enum class DType : uint8_t { kF32, kF16, kBF16, kI64, kI32, kI8, kU8, kF8E4M3, kI4, kI8Groups };

size_t dtype_size(DType dtype);            // bytes of one element; 0 for numbers in groups
std::string_view dtype_name(DType dtype);  // safetensors' spelling: "F32", "BF16", ...
std::optional<DType> dtype_from_name(std::string_view);  // the same spelling; never of groups

// Whether rows of slots and weights in this type have a scale beside them (kernels/rounding.h).
constexpr bool is_scaled(DType dtype) { return dtype == DType::kI8 || dtype == DType::kF8E4M3; }

// n numbers of kF32, kF16 or kBF16 at any address, as f32.
void widen_floats(const std::byte* from, int64_t n, DType dtype, float* to);

float f16_to_f32(uint16_t bits);
float bf16_to_f32(uint16_t bits);
float f8_to_f32(uint8_t bits);      // kF8E4M3
uint16_t f32_to_f16(float value);   // round to nearest even
uint16_t f32_to_bf16(float value);  // round to nearest even, NaN stays NaN
uint8_t f32_to_f8(float value);     // the same; what is beyond the range becomes its largest

}  // namespace dmc

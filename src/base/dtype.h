// Element types of tensors in files and caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace dmc {

enum class DType : uint8_t { kF32, kF16, kBF16, kI64, kI32, kI8, kU8 };

size_t dtype_size(DType dtype);            // bytes of one element
std::string_view dtype_name(DType dtype);  // safetensors' spelling: "F32", "BF16", ...
std::optional<DType> dtype_from_name(std::string_view);  // the same spelling

float f16_to_f32(uint16_t bits);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);   // round to nearest even
uint16_t f32_to_bf16(float value);  // round to nearest even, NaN stays NaN

}  // namespace dmc

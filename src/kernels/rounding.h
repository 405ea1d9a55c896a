// Rows of numbers in the precisions that slots and weights are kept in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace dmc::kernels {

// Rounds n numbers to kF32, kBF16, kF16 (what is beyond its range becomes its largest), kI8 or
// kF8E4M3. These two hold x / scale, rounded, where scale = max|x| / the type's largest number goes
// to *scale (null for the other types); if one of the numbers is not finite, the scale is NaN, and
// so is all of the row.
void round_row(const float* from, int64_t n, DType type, std::byte* to, float* scale);

// The numbers that such a row holds. It may lie at any address.
void widen_row(const std::byte* from, int64_t n, DType type, const float* scale, float* to);

}  // namespace dmc::kernels

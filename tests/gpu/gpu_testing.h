// What the tests of tests/gpu share.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "base/dtype.h"

namespace dmc::kernels::cuda {

// Slot types and head sizes that attention is compiled for.
inline std::vector<std::pair<DType, int>> compiled_kernels() {
#define DMC_SLOT_KERNEL(TYPE, DIM) {DType::TYPE, DIM},
  return {
#include "kernels/cuda/attention/slot_kernels.inc"
  };
#undef DMC_SLOT_KERNEL
}

// Norm of the difference over the norm of what is wanted. Where a NaN is wanted (rows of a batch
// that are not in use) there must be one; any other gives NaN, which passes no test.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& wanted) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::isnan(wanted[i]) && std::isnan(got[i])) continue;
    difference += (double{got[i]} - wanted[i]) * (double{got[i]} - wanted[i]);
    norm += double{wanted[i]} * wanted[i];
  }
  return std::sqrt(difference / norm);
}

// Queries and weights are rounded to the slots' type (8-bit: to f16); tensor cores sum in f32, but
// cut off where others round.
inline double allowed_error(DType type) {
  switch (type) {
    case DType::kF32:
      return 1e-5;
    case DType::kBF16:
      return 6e-3;
    case DType::kI8:  // the CPU rounds queries too, to 14 bits
      return 2e-3;
    default:
      return 8e-4;
  }
}

}  // namespace dmc::kernels::cuda

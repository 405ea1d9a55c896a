// A device's product, cut into those that multiply_few_rows takes.
#pragma once

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/products/few_rows.h"

namespace dmc::kernels::cuda {

// fn(part) for kMostFewRows rows at a time. Arguments as Device::linear's.
template <class Fn>
void each_few_rows(const Matrix& weights, const float* bias, const Numbers& x, int64_t rows,
                   float* y, Fn&& fn) {
  for (int64_t first = 0; first < rows; first += kMostFewRows) {
    fn(FewRows{weights.data, x.from(first * weights.inputs).data, weights.scales, bias,
               y + first * weights.outputs, weights.outputs, weights.inputs,
               static_cast<int>(std::min<int64_t>(kMostFewRows, rows - first))});
  }
}

}  // namespace dmc::kernels::cuda

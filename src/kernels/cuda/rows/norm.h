// The norm in front of a layer's half, with the residual sum that precedes it.
#pragma once

#include <cstdint>

#include "kernels/cuda/lanes/portable.h"

namespace dmc::kernels::cuda {

// x += y (null: nothing), out = norm(x) of one row of `width` numbers: root mean square norm, or
// layer norm if `centred`; then times weight, plus bias (null: none). Out is f32 or bf16.
template <class Team, class Out>
DMC_DEVICE void add_and_norm_row(float* x, const float* y, int width, bool centred, float eps,
                                 const float* weight, const float* bias, Out* out) {
  float sum = 0.0f;
  for (int i = Team::lane(); i < width; i += Team::size()) {
    if (y != nullptr) x[i] += y[i];
    sum += x[i];
  }
  const float mean = centred ? Team::sum(sum) / static_cast<float>(width) : 0.0f;
  float squares = 0.0f;
  for (int i = Team::lane(); i < width; i += Team::size()) {
    squares += (x[i] - mean) * (x[i] - mean);
  }
  const float factor = 1.0f / sqrtf(Team::sum(squares) / static_cast<float>(width) + eps);
  for (int i = Team::lane(); i < width; i += Team::size()) {
    const float normed = (x[i] - mean) * factor * weight[i];
    out[i] = static_cast<Out>(bias != nullptr ? normed + bias[i] : normed);
  }
}

}  // namespace dmc::kernels::cuda

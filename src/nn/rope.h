// Rotary embedding of whole sequences for training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dmc::nn {

// Angles for positions 0..positions-1 (kernels::RopeTable as tensors).
class Rope {
 public:
  Rope(int64_t positions, int64_t head_dim, double theta);
  // x_BTHd rotated with positions 0..T-1.
  at::Tensor apply(const at::Tensor& x_BTHd) const;

 private:
  at::Tensor cos_T1h_, sin_T1h_;  // [positions, 1, d/2]
};

}  // namespace dmc::nn

// Rotary embedding of whole sequences for training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace dmc::nn {

// Angles for positions 0..positions-1 (kernels::RopeTable as tensors).
class Rope {
 public:
  // frequencies: radians a position for each channel pair; none: apply() changes nothing, as
  // families without rotary embedding want it. Angles lie on `device`, as what is rotated must.
  Rope(int64_t positions, std::span<const double> frequencies, at::Device device = at::kCPU);
  // x_BTHd rotated with positions 0..T-1, in f32 at least, and rounded to x's dtype at the end.
  at::Tensor apply(const at::Tensor& x_BTHd) const;

 private:
  at::Tensor cos_T1h_, sin_T1h_;  // [positions, 1, d/2]; undefined without frequencies
};

}  // namespace dmc::nn

// What is computed in more digits than it is stored in.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace dmc::ops {

// x itself in f32 and f64, a copy in f32 of bf16 and f16.
inline at::Tensor at_least_f32(const at::Tensor& x) {
  return x.to(c10::promoteTypes(x.scalar_type(), at::kFloat));
}

}  // namespace dmc::ops

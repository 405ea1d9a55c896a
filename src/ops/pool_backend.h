// Pooling on a kind of device, over contiguous tensors without autograd (ops/pool.h has it).
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/pooling.h"

namespace dmc::ops {

// Shapes as in kernels/pooling.h. k, v and the means are of one dtype; alpha, omega and total are
// f32, or f64 with f64.
struct PoolForward {
  kernels::PoolShape shape;
  at::Tensor k, v, alpha, omega;
  at::Tensor k_out, v_out, total;  // overwritten
};

struct PoolBackward {
  at::Tensor gk, gv;
  at::Tensor dk, dv, dmerge_logit, dimportance_logit;  // overwritten
};

struct PoolBackend {
  void (*forward)(const PoolForward& x);
  void (*backward)(const PoolForward& x, const PoolBackward& y);
};

const PoolBackend& cpu_pooling();   // f32 and f64
const PoolBackend& cuda_pooling();  // f32 and bf16, kernels/cuda/rows/pooling.h

}  // namespace dmc::ops

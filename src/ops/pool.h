// Windowed segmented pooling of keys and values with soft decisions (training).
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace dmc::ops {

// Pooled keys and values, each [B, T, K, d]: at token t the mean of k_j (v_j) over t-window < j <=
// t (window 0: all j <= t) with weights omega_j * prod_{j < m <= t} alpha_m, where alpha =
// sigmoid(merge_logit), alpha_0 = 0, omega = sigmoid(importance_logit). Paper, equation 7. With
// newest_weighs_one token t itself weighs 1 in the mean at t, whatever its omega.
// k, v: [B, T, K, d] in f32 or bf16, or f64 on the CPU, and so are the means; logits: [B, T, K] in
// f32, or f64 with f64. Differentiable in all four. On CUDA the window must be above 0 (Error).
std::pair<at::Tensor, at::Tensor> pool(const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                                       const at::Tensor& merge_logit_BTK,
                                       const at::Tensor& importance_logit_BTK, int64_t window,
                                       bool newest_weighs_one = false);

// Whether this program was built with the kernels for it.
bool can_pool_on_cuda();

}  // namespace dmc::ops

// Plain causal attention and its gradient as a library has them, and what it takes to compose
// attention with decisions out of them (ops/split_attention.h). Shape legend as in ops/attention.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace dmc::ops {

struct CausalMask {
  double scale = 1.0;  // of scores
  // A query sees its own key and so many before it; none: all before it.
  std::optional<int64_t> window;
};

struct Attended {
  at::Tensor out_BTHd;
  at::Tensor lse_BHT;  // log of the sum of exponentials of a query's scores, f32 (f64 for f64)
};

struct AttentionGradients {
  at::Tensor dq_BTHd, dk_BTKd, dv_BTKd;
};

// The backward pass takes `attended` from its caller, not from its own forward pass: with the
// output and the log-sum-exp of a softmax over more keys than these, it gives these keys' part of
// the gradients of the whole (as in ring attention).
struct AttentionPair {
  Attended (*forward)(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                      const CausalMask& mask);
  AttentionGradients (*backward)(const at::Tensor& grad_BTHd, const at::Tensor& q_BTHd,
                                 const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                                 const Attended& attended, const CausalMask& mask);
};

// LibTorch's flash attention on CUDA: bf16 and f16, heads of at most 256 channels, memory O(T).
const AttentionPair& flash_pair();

// From the definition, on any device and in any floating type, with [T, T] matrices of scores: the
// slow twin, and what computes in f32 on CUDA.
const AttentionPair& plain_pair();

}  // namespace dmc::ops

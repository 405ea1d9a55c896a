// Training attention. Shape legend: B sequences, T tokens, H query heads, K KV heads (H a multiple
// of K; query head h reads KV head h / (H/K)), d head size. Scale is d^-0.5, attention is causal.
#pragma once

#include <ATen/core/Tensor.h>

namespace dmc::ops {

// Plain causal attention. Returns [B, T, H, d]. Differentiable, f32 or f64.
at::Tensor causal_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd);

// DMC training attention (Nawrot et al. 2024, section 3.2): query i sees key j < i with the
// additive bias log(1 - alpha_{j+1}), and itself without bias, where alpha = sigmoid(merge_logit)
// is the merge decision of the next token: a slot that the next token merges into is, from then on,
// seen only as part of the longer one. k and v are pooled, q and k rotated. Memory is O(T).
//
// merge_logit_BTK: [B, T, K]. Differentiable in all four arguments, f32 or f64.
at::Tensor dmc_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                         const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK);

// The same from its definition, with a [T, T] matrix of scores: the slow twin for tests.
at::Tensor dmc_attention_literal(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                 const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK);

}  // namespace dmc::ops

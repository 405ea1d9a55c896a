// Training attention. Shape legend: B sequences, T tokens, H query heads, K KV heads (H a multiple
// of K; query head h reads KV head h / (H/K)), d head size. Scale is d^-0.5, attention is causal.
#pragma once

#include <ATen/core/Tensor.h>

namespace dmc::ops {

// Both attentions below take f32, f64, bf16 or f16, return the dtype of q and are differentiable in
// all tensors. On the CPU a kernel of our own computes them, in f32 or more. On CUDA LibTorch's
// flash attention does (ops/split_attention.h) for bf16 and f16; f32 takes [T, T] matrices of
// scores there.

// Plain causal attention. Returns [B, T, H, d].
at::Tensor causal_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd);

// Training attention with soft decisions, alpha = sigmoid(logit). The decision of token j + 1 is
// about key j: query i sees key j with the additive bias log(1 - alpha_{j+1}) if i - j > delay, and
// without bias if it is nearer.
// - DMC (Nawrot et al. 2024, section 3.2), delay 0: a slot that the next token merges into is, from
//   then on, seen only as part of the longer one. k and v are pooled.
// - DMS (arXiv 2506.05345), delay = its window: a token that was decided against is gone once it is
//   more than so many tokens back.
//
// q and k are rotated. logit_BTK: [B, T, K], in q's dtype but f32 at least.
at::Tensor decision_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                              const at::Tensor& v_BTKd, const at::Tensor& logit_BTK, int64_t delay);

// Keys or values as the `delay` newest queries see them and as later ones do.
struct NearAndFar {
  at::Tensor near, far;
};

// The same with keys and values that turn into others: query i sees the near ones of token j if
// i - j < delay, and the far ones from then on, without bias if i - j = delay, else with it. The
// far ones are pooled: a token stays as it is for so long, and is then what its slot holds. Not on
// CUDA.
at::Tensor delayed_attention(const at::Tensor& q_BTHd, const NearAndFar& k_BTKd,
                             const NearAndFar& v_BTKd, const at::Tensor& logit_BTK, int64_t delay);

// Both from their definition, with [T, T] matrices of scores: the slow twins for tests.
at::Tensor decision_attention_literal(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                      const at::Tensor& v_BTKd, const at::Tensor& logit_BTK,
                                      int64_t delay);
at::Tensor delayed_attention_literal(const at::Tensor& q_BTHd, const NearAndFar& k_BTKd,
                                     const NearAndFar& v_BTKd, const at::Tensor& logit_BTK,
                                     int64_t delay);

}  // namespace dmc::ops

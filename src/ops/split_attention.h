// Attention with decisions out of a library's plain causal attention, for devices on which we have
// no kernel of our own. A query's keys are split into FAR ones, more than `delay` back, which have
// a bias each, and NEAR ones, which have none; the two results are merged by their log-sum-exps.
//
// FAR is plain causal attention of the queries from delay + 1 on over as many keys from the start,
// with the bias in two channels that are added to each head: q holds 1 there, k the bias over the
// scale, rounded, and what the rounding left. What comes back for that channel of k is the bias's
// gradient, which the libraries do not return for biases of their own. NEAR is attention in a
// window, or, if the delay is 0, the query's own key alone, at a cost of O(T d). Where keys turn
// into others at the delay, the one that stands exactly there is a third part, of the same cost.
#pragma once

#include <optional>

#include "ops/attention_pair.h"

namespace dmc::ops {

// What queries see of tokens that are the delay and more back, where that is something else.
struct FarKeysAndValues {
  std::optional<at::Tensor> k_BTKd = {}, v_BTKd = {};
};

// As decision_attention() (ops/attention.h), but with the biases [B, T, K] of keys in the place of
// decisions, f32 or f64; undefined: none, and `delay` has no meaning; and with `far` as
// delayed_attention(). Exact up to rounding, memory as the pair's; differentiable in all tensors.
// Returns q's dtype.
at::Tensor split_attention(const AttentionPair& pair, const at::Tensor& q_BTHd,
                           const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                           const at::Tensor& bias_BTK, int64_t delay,
                           const FarKeysAndValues& far = {});

}  // namespace dmc::ops

#include "ops/split_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/precision.h"

namespace dmc::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Operands {
  at::Tensor q_BTHd, k_BTKd, v_BTKd, bias_BTK;  // bias undefined: none
  int64_t delay;

  int64_t tokens() const { return q_BTHd.size(1); }
  int64_t channels() const { return q_BTHd.size(3); }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(channels())); }
  // Queries that see a biased key; these are the last ones.
  int64_t far_tokens() const {
    return bias_BTK.defined() ? std::max<int64_t>(0, tokens() - delay - 1) : 0;
  }
  bool near_is_own_key() const { return far_tokens() > 0 && delay == 0; }
};

// The bias over the scale as two channels: in a dtype of few digits one would round it, and the
// second costs nothing, since heads have a multiple of 8 channels anyway.
at::Tensor bias_channels(const Operands& x) {
  const at::Tensor exact = x.bias_BTK.narrow(1, 0, x.far_tokens()) / x.scale();
  const at::Tensor rounded = exact.to(x.k_BTKd.scalar_type());
  return at::stack({rounded, (exact - rounded).to(rounded.scalar_type())}, -1);
}

// Channels of a head with both of the bias's, as many as pairs like (8).
int64_t far_channels(const Operands& x) { return (x.channels() + 2 + 7) / 8 * 8; }

at::Tensor zero_padded(const at::Tensor& x, int64_t channels) {
  return at::constant_pad_nd(x, {0, channels - x.size(-1)});
}

at::Tensor far_queries(const at::Tensor& x_BTHd, const Operands& from) {
  return x_BTHd.narrow(1, from.delay + 1, from.far_tokens());
}

struct FarOperands {
  at::Tensor q, k, v;
};

FarOperands far_operands(const Operands& x) {
  const int64_t n = x.far_tokens(), channels = far_channels(x);
  const at::Tensor q = far_queries(x.q_BTHd, x);
  const at::Tensor one = at::ones({1}, q.options()).expand({q.size(0), n, q.size(2), 2});
  return {zero_padded(at::cat({q, one}, -1), channels),
          zero_padded(at::cat({x.k_BTKd.narrow(1, 0, n), bias_channels(x)}, -1), channels),
          zero_padded(x.v_BTKd.narrow(1, 0, n), channels)};
}

CausalMask near_mask(const Operands& x) {
  if (x.far_tokens() == 0) return {x.scale(), std::nullopt};
  return {x.scale(), x.delay};
}

at::Tensor repeat_heads(const at::Tensor& x_BTKd, int64_t heads) {
  const int64_t groups = heads / x_BTKd.size(2);
  return groups == 1 ? x_BTKd : x_BTKd.repeat_interleave(groups, 2);
}

at::Tensor sum_of_groups(const at::Tensor& x_BTHd, int64_t kv_heads) {
  return x_BTHd.unflatten(2, at::IntArrayRef{kv_heads, -1}).sum(3);
}

// Scores of each query with its own key, [B, T, H, 1].
at::Tensor own_scores(const Operands& x) {
  const at::Tensor k = repeat_heads(x.k_BTKd, x.q_BTHd.size(2));
  return (at_least_f32(x.q_BTHd) * k).sum(-1, /*keepdim=*/true) * x.scale();
}

Attended near_forward(const AttentionPair& pair, const Operands& x) {
  if (!x.near_is_own_key()) return pair.forward(x.q_BTHd, x.k_BTKd, x.v_BTKd, near_mask(x));
  return {repeat_heads(x.v_BTKd, x.q_BTHd.size(2)), own_scores(x).squeeze(-1).transpose(1, 2)};
}

// `whole`: of the softmax over near and far keys, as for all backward passes here.
AttentionGradients near_backward(const AttentionPair& pair, const Operands& x,
                                 const at::Tensor& grad, const Attended& whole) {
  if (!x.near_is_own_key()) {
    return pair.backward(grad, x.q_BTHd, x.k_BTKd, x.v_BTKd, whole, near_mask(x));
  }
  const int64_t H = x.q_BTHd.size(2), K = x.k_BTKd.size(2);
  const at::Tensor weight = (own_scores(x) - whole.lse_BHT.transpose(1, 2).unsqueeze(-1)).exp();
  const at::Tensor g = at_least_f32(grad);
  const at::Tensor away = at_least_f32(repeat_heads(x.v_BTKd, H)) - whole.out_BTHd;
  const at::Tensor gain = (g * away).sum(-1, /*keepdim=*/true);
  const at::Tensor ds = weight * gain * x.scale();
  return {ds * repeat_heads(x.k_BTKd, H), sum_of_groups(ds * x.q_BTHd, K),
          sum_of_groups(weight * g, K)};
}

// The softmax over the keys of both parts.
Attended merge(const Attended& a, const Attended& b) {
  const at::Tensor lse = at::logaddexp(a.lse_BHT, b.lse_BHT);
  const auto part = [&](const Attended& x) {
    return (x.lse_BHT - lse).exp().transpose(1, 2).unsqueeze(-1) * x.out_BTHd;
  };
  return {(part(a) + part(b)).to(b.out_BTHd.scalar_type()), lse};
}

Attended split_forward(const AttentionPair& pair, const Operands& x) {
  const Attended near = near_forward(pair, x);
  const int64_t n = x.far_tokens(), first = x.delay + 1;
  if (n == 0) return near;
  const auto [q, k, v] = far_operands(x);
  const Attended biased = pair.forward(q, k, v, {x.scale(), std::nullopt});
  const Attended far = {biased.out_BTHd.narrow(-1, 0, x.channels()), biased.lse_BHT};
  const Attended late =
      merge({far_queries(near.out_BTHd, x), near.lse_BHT.narrow(2, first, n)}, far);
  return {at::cat({near.out_BTHd.narrow(1, 0, first), late.out_BTHd}, 1),
          at::cat({near.lse_BHT.narrow(2, 0, first), late.lse_BHT}, 2)};
}

struct SplitGradients {
  at::Tensor dq, dk, dv, dbias;
};

SplitGradients split_backward(const AttentionPair& pair, const Operands& x, const at::Tensor& grad,
                              const Attended& whole) {
  const auto [dq, dk, dv] = near_backward(pair, x, grad, whole);
  const int64_t n = x.far_tokens(), d = x.channels(), wide = far_channels(x);
  const at::Tensor dbias = x.bias_BTK.defined() ? at::zeros_like(x.bias_BTK) : at::Tensor();
  if (n > 0) {
    const auto [q, k, v] = far_operands(x);
    const Attended late = {zero_padded(far_queries(whole.out_BTHd, x), wide),
                           whole.lse_BHT.narrow(2, x.delay + 1, n)};
    const AttentionGradients far = pair.backward(zero_padded(far_queries(grad, x), wide), q, k, v,
                                                 late, {x.scale(), std::nullopt});
    far_queries(dq, x).add_(far.dq_BTHd.narrow(-1, 0, d));
    dk.narrow(1, 0, n).add_(far.dk_BTKd.narrow(-1, 0, d));
    dv.narrow(1, 0, n).add_(far.dv_BTKd.narrow(-1, 0, d));
    // The score is scale * bias / scale; the channel's gradient still has the first factor.
    dbias.narrow(1, 0, n).copy_(far.dk_BTKd.select(-1, d)).div_(x.scale());
  }
  return {dq.to(x.q_BTHd.scalar_type()), dk.to(x.k_BTKd.scalar_type()),
          dv.to(x.v_BTKd.scalar_type()), dbias};
}

struct SplitAttention : torch::autograd::Function<SplitAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::optional<at::Tensor>& bias,
                            int64_t delay, const AttentionPair* pair) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Operands x{q, k, v, bias.value_or(at::Tensor()), delay};
    const Attended attended = split_forward(*pair, x);
    context->saved_data["delay"] = delay;
    context->saved_data["pair"] = reinterpret_cast<int64_t>(pair);
    context->save_for_backward({q, k, v, x.bias_BTK, attended.out_BTHd, attended.lse_BHT});
    return attended.out_BTHd;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const Operands x{saved[0], saved[1], saved[2], saved[3], context->saved_data["delay"].toInt()};
    const auto* pair = reinterpret_cast<const AttentionPair*>(context->saved_data["pair"].toInt());
    const auto [dq, dk, dv, dbias] =
        split_backward(*pair, x, gradients[0].contiguous(), {saved[4], saved[5]});
    return {dq, dk, dv, dbias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor split_attention(const AttentionPair& pair, const at::Tensor& q_BTHd,
                           const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                           const at::Tensor& bias_BTK, int64_t delay) {
  const auto bias = bias_BTK.defined() ? std::optional(bias_BTK) : std::nullopt;
  return SplitAttention::apply(q_BTHd, k_BTKd, v_BTKd, bias, delay, &pair);
}

}  // namespace dmc::ops

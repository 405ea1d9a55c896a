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
  at::Tensor far_k_BTKd, far_v_BTKd;            // undefined: as k and v
  int64_t delay;

  int64_t tokens() const { return q_BTHd.size(1); }
  int64_t channels() const { return q_BTHd.size(3); }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(channels())); }
  // Queries that see a biased key; these are the last ones.
  int64_t far_tokens() const {
    return bias_BTK.defined() ? std::max<int64_t>(0, tokens() - delay - 1) : 0;
  }
  bool turns() const { return far_k_BTKd.defined(); }
  const at::Tensor& far_k() const { return turns() ? far_k_BTKd : k_BTKd; }
  const at::Tensor& far_v() const { return turns() ? far_v_BTKd : v_BTKd; }
  // Queries that see one key apart from near and far ones, `delay` tokens back and without bias;
  // these are the last ones. (If the delay is 0, it is the query's own, and there are no near
  // ones.)
  int64_t edge_tokens() const {
    const bool apart = turns() || (delay == 0 && far_tokens() > 0);
    return apart ? std::max<int64_t>(0, tokens() - delay) : 0;
  }
  // Tokens before a query's own that are near; fewer than 0: not even that.
  int64_t near_reach() const { return edge_tokens() > 0 ? delay - 1 : delay; }
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

// The last `count` of its tokens.
at::Tensor last(const at::Tensor& x_BTHd, int64_t count) {
  return x_BTHd.narrow(1, x_BTHd.size(1) - count, count);
}

struct FarOperands {
  at::Tensor q, k, v;
};

FarOperands far_operands(const Operands& x) {
  const int64_t n = x.far_tokens(), channels = far_channels(x);
  const at::Tensor q = last(x.q_BTHd, n);
  const at::Tensor one = at::ones({1}, q.options()).expand({q.size(0), n, q.size(2), 2});
  return {zero_padded(at::cat({q, one}, -1), channels),
          zero_padded(at::cat({x.far_k().narrow(1, 0, n), bias_channels(x)}, -1), channels),
          zero_padded(x.far_v().narrow(1, 0, n), channels)};
}

CausalMask near_mask(const Operands& x) {
  if (x.far_tokens() == 0 && x.edge_tokens() == 0) return {x.scale(), std::nullopt};
  return {x.scale(), x.near_reach()};
}

at::Tensor repeat_heads(const at::Tensor& x_BTKd, int64_t heads) {
  const int64_t groups = heads / x_BTKd.size(2);
  return groups == 1 ? x_BTKd : x_BTKd.repeat_interleave(groups, 2);
}

at::Tensor sum_of_groups(const at::Tensor& x_BTHd, int64_t kv_heads) {
  return x_BTHd.unflatten(2, at::IntArrayRef{kv_heads, -1}).sum(3);
}

// What the edge's queries see: a key and a value each, [B, n, H, d].
struct Edge {
  at::Tensor q, k, v;

  explicit Edge(const Operands& x) : q(last(x.q_BTHd, x.edge_tokens())) {
    const int64_t n = x.edge_tokens(), H = q.size(2);
    k = repeat_heads(x.far_k().narrow(1, 0, n), H);
    v = repeat_heads(x.far_v().narrow(1, 0, n), H);
  }
  at::Tensor scores(double scale) const {  // [B, n, H, 1]
    return (at_least_f32(q) * k).sum(-1, /*keepdim=*/true) * scale;
  }
};

Attended edge_forward(const Operands& x) {
  const Edge edge(x);
  return {edge.v, edge.scores(x.scale()).squeeze(-1).transpose(1, 2)};
}

// `whole`: of the softmax over all keys, as for all backward passes here; of the edge's queries.
AttentionGradients edge_backward(const Operands& x, const at::Tensor& grad, const Attended& whole) {
  const Edge edge(x);
  const int64_t K = x.k_BTKd.size(2);
  const at::Tensor weight =
      (edge.scores(x.scale()) - whole.lse_BHT.transpose(1, 2).unsqueeze(-1)).exp();
  const at::Tensor g = at_least_f32(grad);
  const at::Tensor gain = (g * (at_least_f32(edge.v) - whole.out_BTHd)).sum(-1, /*keepdim=*/true);
  const at::Tensor ds = weight * gain * x.scale();
  return {ds * edge.k, sum_of_groups(ds * edge.q, K), sum_of_groups(weight * g, K)};
}

// The softmax over the keys of both parts.
Attended merge(const Attended& a, const Attended& b) {
  const at::Tensor lse = at::logaddexp(a.lse_BHT, b.lse_BHT);
  const auto part = [&](const Attended& x) {
    return (x.lse_BHT - lse).exp().transpose(1, 2).unsqueeze(-1) * x.out_BTHd;
  };
  return {(part(a) + part(b)).to(b.out_BTHd.scalar_type()), lse};
}

Attended last(const Attended& x, int64_t count) {
  return {last(x.out_BTHd, count), x.lse_BHT.narrow(2, x.lse_BHT.size(2) - count, count)};
}

// Takes what the last queries see besides into what all of them see.
Attended with(const Attended& all, const Attended& more) {
  const int64_t n = more.lse_BHT.size(2), before = all.lse_BHT.size(2) - n;
  if (before == 0) return merge(all, more);
  const Attended merged = merge(last(all, n), more);
  return {at::cat({all.out_BTHd.narrow(1, 0, before), merged.out_BTHd}, 1),
          at::cat({all.lse_BHT.narrow(2, 0, before), merged.lse_BHT}, 2)};
}

Attended split_forward(const AttentionPair& pair, const Operands& x) {
  Attended seen;
  if (x.near_reach() >= 0) seen = pair.forward(x.q_BTHd, x.k_BTKd, x.v_BTKd, near_mask(x));
  if (x.edge_tokens() > 0) {
    seen = seen.out_BTHd.defined() ? with(seen, edge_forward(x)) : edge_forward(x);
  }
  if (x.far_tokens() == 0) return seen;
  const auto [q, k, v] = far_operands(x);
  const Attended biased = pair.forward(q, k, v, {x.scale(), std::nullopt});
  return with(seen, {biased.out_BTHd.narrow(-1, 0, x.channels()), biased.lse_BHT});
}

struct SplitGradients {
  at::Tensor dq, dk, dv, dbias, dfar_k, dfar_v;

  explicit SplitGradients(const Operands& x) {
    const auto zeros = [](const at::Tensor& t) {
      return t.defined() ? at::zeros_like(at_least_f32(t)) : at::Tensor();
    };
    dq = zeros(x.q_BTHd), dk = zeros(x.k_BTKd), dv = zeros(x.v_BTKd), dbias = zeros(x.bias_BTK);
    dfar_k = zeros(x.far_k_BTKd), dfar_v = zeros(x.far_v_BTKd);
  }
  // Of the keys from the first one on, as queries see them that are not near.
  void add_far(const at::Tensor& of_k, const at::Tensor& of_v) {
    const int64_t n = of_k.size(1);
    (dfar_k.defined() ? dfar_k : dk).narrow(1, 0, n).add_(of_k);
    (dfar_v.defined() ? dfar_v : dv).narrow(1, 0, n).add_(of_v);
  }
};

SplitGradients split_backward(const AttentionPair& pair, const Operands& x, const at::Tensor& grad,
                              const Attended& whole) {
  SplitGradients to(x);
  if (x.near_reach() >= 0) {
    const AttentionGradients near =
        pair.backward(grad, x.q_BTHd, x.k_BTKd, x.v_BTKd, whole, near_mask(x));
    to.dq.add_(near.dq_BTHd), to.dk.add_(near.dk_BTKd), to.dv.add_(near.dv_BTKd);
  }
  if (const int64_t n = x.edge_tokens(); n > 0) {
    const AttentionGradients edge = edge_backward(x, last(grad, n), last(whole, n));
    last(to.dq, n).add_(edge.dq_BTHd);
    to.add_far(edge.dk_BTKd, edge.dv_BTKd);
  }
  if (const int64_t n = x.far_tokens(); n > 0) {
    const int64_t d = x.channels(), wide = far_channels(x);
    const auto [q, k, v] = far_operands(x);
    const Attended of_queries = last(whole, n);
    const AttentionGradients far = pair.backward(
        zero_padded(last(grad, n), wide), q, k, v,
        {zero_padded(of_queries.out_BTHd, wide), of_queries.lse_BHT}, {x.scale(), std::nullopt});
    last(to.dq, n).add_(far.dq_BTHd.narrow(-1, 0, d));
    to.add_far(far.dk_BTKd.narrow(-1, 0, d), far.dv_BTKd.narrow(-1, 0, d));
    // The score is scale * bias / scale; the channel's gradient still has the first factor.
    to.dbias.narrow(1, 0, n).copy_(far.dk_BTKd.select(-1, d)).div_(x.scale());
  }
  return to;
}

at::Tensor cast_like(const at::Tensor& gradient, const at::Tensor& x) {
  return x.defined() ? gradient.to(x.scalar_type()) : at::Tensor();
}

struct SplitAttention : torch::autograd::Function<SplitAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& far_k,
                            const std::optional<at::Tensor>& far_v, int64_t delay,
                            const AttentionPair* pair) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Operands x{q,
                     k,
                     v,
                     bias.value_or(at::Tensor()),
                     far_k.value_or(at::Tensor()),
                     far_v.value_or(at::Tensor()),
                     delay};
    const Attended attended = split_forward(*pair, x);
    context->saved_data["delay"] = delay;
    context->saved_data["pair"] = reinterpret_cast<int64_t>(pair);
    context->save_for_backward(
        {q, k, v, x.bias_BTK, x.far_k_BTKd, x.far_v_BTKd, attended.out_BTHd, attended.lse_BHT});
    return attended.out_BTHd;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const Operands x{saved[0],
                     saved[1],
                     saved[2],
                     saved[3],
                     saved[4],
                     saved[5],
                     context->saved_data["delay"].toInt()};
    const auto* pair = reinterpret_cast<const AttentionPair*>(context->saved_data["pair"].toInt());
    const SplitGradients to =
        split_backward(*pair, x, gradients[0].contiguous(), {saved[6], saved[7]});
    return {cast_like(to.dq, x.q_BTHd),
            cast_like(to.dk, x.k_BTKd),
            cast_like(to.dv, x.v_BTKd),
            to.dbias,
            cast_like(to.dfar_k, x.far_k_BTKd),
            cast_like(to.dfar_v, x.far_v_BTKd),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor split_attention(const AttentionPair& pair, const at::Tensor& q_BTHd,
                           const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                           const at::Tensor& bias_BTK, int64_t delay, const FarKeysAndValues& far) {
  const auto bias = bias_BTK.defined() ? std::optional(bias_BTK) : std::nullopt;
  return SplitAttention::apply(q_BTHd, k_BTKd, v_BTKd, bias, far.k_BTKd, far.v_BTKd, delay, &pair);
}

}  // namespace dmc::ops

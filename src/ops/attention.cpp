#include "ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <tuple>

#include "base/error.h"

namespace dmc::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A merge logit of +inf would give a bias of -inf, and a row whose keys all have it gives NaN.
// exp(-1e4) is 0 in every dtype we train in, so this floor changes no result.
constexpr double kLowestBias = -1e4;

// [B, T, K, ...] to [B, T, H, ...]: the KV head's value for each query head of its group.
at::Tensor repeat_heads(const at::Tensor& x, int64_t groups) {
  return groups == 1 ? x : x.repeat_interleave(groups, 2);
}

// The transpose of repeat_heads: sums the gradients of a group.
at::Tensor sum_groups(const at::Tensor& x, int64_t kv_heads) {
  const int64_t groups = x.size(2) / kv_heads;
  return groups == 1 ? x : x.unflatten(2, at::IntArrayRef{kv_heads, groups}).sum(3);
}

// values[:, 1:] shifted to the left by one token, `last` for the final token, which has no next.
at::Tensor of_next_token(const at::Tensor& values_BTK, double last) {
  const at::Tensor end = at::full_like(values_BTK.narrow(1, 0, 1), last);
  return at::cat({values_BTK.narrow(1, 1, values_BTK.size(1) - 1), end}, 1);
}

at::Tensor bias_of(const at::Tensor& merge_logit_BTK) {  // log(1 - alpha of the next token)
  return of_next_token(at::log_sigmoid(-merge_logit_BTK), 0.0).clamp_min(kLowestBias);
}

at::Tensor log_merge_next(const at::Tensor& merge_logit_BTK) {  // log(alpha of the next token)
  return of_next_token(at::log_sigmoid(merge_logit_BTK), -std::numeric_limits<double>::infinity());
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(-1))); }

at::Tensor with_channel(const at::Tensor& x, const at::Tensor& channel) {
  return at::cat({x, channel.unsqueeze(-1)}, -1);
}

struct DmcAttention : torch::autograd::Function<DmcAttention> {
  // In all of it: s_ii the diagonal's score; the stock kernel counted the diagonal with weight
  // exp(s_ii + b_i) = (1 - alpha) exp(s_ii); the missing alpha * exp(s_ii) is positive, so it is
  // merged in like one more key: nothing cancels.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHd,
                            const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                            const at::Tensor& merge_logit_BTK) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const int64_t groups = q_BTHd.size(2) / k_BTKd.size(2);
    const at::Tensor k = repeat_heads(k_BTKd, groups), v = repeat_heads(v_BTKd, groups);
    const at::Tensor bias_BHT = repeat_heads(bias_of(merge_logit_BTK), groups).transpose(1, 2);

    auto [out_BHTd, lse_BHT] = at::_scaled_dot_product_flash_attention_for_cpu(
        q_BTHd.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), 0.0, /*is_causal=*/true,
        /*attn_mask=*/bias_BHT.unsqueeze(2), scale_of(q_BTHd));
    const at::Tensor lse = lse_BHT.transpose(1, 2);  // [B, T, H]

    const at::Tensor own =
        own_score(q_BTHd, k) + repeat_heads(log_merge_next(merge_logit_BTK), groups);
    const at::Tensor total = at::logaddexp(lse, own);
    const at::Tensor out = out_BHTd.transpose(1, 2) * (lse - total).exp().unsqueeze(-1) +
                           v * (own - total).exp().unsqueeze(-1);
    context->save_for_backward({q_BTHd, k_BTKd, v_BTKd, merge_logit_BTK, out, total, own});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k_BTKd = saved[1], &v_BTKd = saved[2], &logit = saved[3];
    const at::Tensor &out = saved[4], &total = saved[5], &own = saved[6];
    const at::Tensor grad = gradients[0].contiguous();
    const int64_t kv_heads = k_BTKd.size(2), groups = q.size(2) / kv_heads, d = q.size(3);
    const at::Tensor k = repeat_heads(k_BTKd, groups), v = repeat_heads(v_BTKd, groups);
    const double scale = scale_of(q);

    // The bias rides in a channel of its own, so that the stock kernel gives its gradient too.
    const at::Tensor none = at::zeros(q.sizes().slice(0, 3), q.options());
    const auto padded = [&](const at::Tensor& x, const at::Tensor& channel) {
      return with_channel(x, channel).transpose(1, 2);
    };
    auto [dq_pad, dk_pad, dv_pad] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        padded(grad, none), padded(q, at::full_like(none, 1.0 / scale)),
        padded(k, repeat_heads(bias_of(logit), groups)), padded(v, none), padded(out, none),
        total.transpose(1, 2), 0.0, /*is_causal=*/true, {}, scale);
    const auto unpadded = [&](const at::Tensor& x) { return x.transpose(1, 2).narrow(3, 0, d); };
    const at::Tensor dbias = dk_pad.select(3, d).transpose(1, 2);  // [B, T, H]

    const at::Tensor weight = (own - total).exp();
    const at::Tensor dscore = weight * (grad * (v - out)).sum(-1);
    const at::Tensor dq = unpadded(dq_pad) + k * (dscore * scale).unsqueeze(-1);
    const at::Tensor dk = unpadded(dk_pad) + q * (dscore * scale).unsqueeze(-1);
    const at::Tensor dv = unpadded(dv_pad) + grad * weight.unsqueeze(-1);

    // d log(alpha) = 1 - alpha, d log(1 - alpha) = -alpha, both of the NEXT token's logit.
    const at::Tensor alpha = logit.sigmoid();
    const at::Tensor dlogit = at::zeros_like(logit);
    const int64_t T = logit.size(1);
    const at::Tensor next = alpha.narrow(1, 1, T - 1);
    dlogit.narrow(1, 1, T - 1)
        .copy_(sum_groups(dscore, kv_heads).narrow(1, 0, T - 1) * (1 - next) -
               sum_groups(dbias, kv_heads).narrow(1, 0, T - 1) * next);
    return {dq, sum_groups(dk, kv_heads), sum_groups(dv, kv_heads), dlogit};
  }

  static at::Tensor own_score(const at::Tensor& q, const at::Tensor& k) {
    return (q * k).sum(-1) * scale_of(q);
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd) {
  const int64_t groups = q_BTHd.size(2) / k_BTKd.size(2);
  return at::scaled_dot_product_attention(
             q_BTHd.transpose(1, 2), repeat_heads(k_BTKd, groups).transpose(1, 2),
             repeat_heads(v_BTKd, groups).transpose(1, 2), {}, 0.0, /*is_causal=*/true)
      .transpose(1, 2);
}

at::Tensor dmc_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                         const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK) {
  DMC_CHECK(q_BTHd.dim() == 4 && k_BTKd.sizes() == v_BTKd.sizes());
  DMC_CHECK(q_BTHd.size(2) % k_BTKd.size(2) == 0);
  DMC_CHECK(merge_logit_BTK.sizes() == k_BTKd.sizes().slice(0, 3));
  DMC_CHECK(merge_logit_BTK.scalar_type() == q_BTHd.scalar_type());
  return DmcAttention::apply(q_BTHd, k_BTKd, v_BTKd, merge_logit_BTK);
}

at::Tensor dmc_attention_literal(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                 const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK) {
  const int64_t groups = q_BTHd.size(2) / k_BTKd.size(2), T = q_BTHd.size(1);
  const auto by_head = [&](const at::Tensor& x) { return repeat_heads(x, groups).transpose(1, 2); };
  const at::Tensor q = q_BTHd.transpose(1, 2), k = by_head(k_BTKd), v = by_head(v_BTKd);
  const at::Tensor bias_BH1T = by_head(bias_of(merge_logit_BTK)).unsqueeze(2);
  const at::Tensor diagonal = at::eye(T, q.options().dtype(at::kBool));
  const at::Tensor future = at::ones({T, T}, q.options().dtype(at::kBool)).triu(1);
  const at::Tensor scores =
      at::matmul(q, k.transpose(2, 3)) * scale_of(q) + bias_BH1T.masked_fill(diagonal, 0.0);
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor weights = at::softmax(scores.masked_fill(future, minus_infinity), -1);
  return at::matmul(weights, v).transpose(1, 2);
}

}  // namespace dmc::ops

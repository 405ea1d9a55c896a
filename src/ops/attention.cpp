#include "ops/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <tuple>

#include "base/error.h"
#include "kernels/diagonal_repair.h"

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

kernels::RepairShape shape_of(const at::Tensor& q_BTHd, int64_t kv_heads) {
  return {q_BTHd.size(0), q_BTHd.size(1), q_BTHd.size(2), kv_heads, q_BTHd.size(3)};
}

struct DmcAttention : torch::autograd::Function<DmcAttention> {
  // The stock kernel counted the diagonal with weight exp(s_ii + b_i) = (1 - alpha) exp(s_ii); the
  // missing alpha * exp(s_ii) is positive, so it is merged in like one more key: nothing cancels.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHd,
                            const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                            const at::Tensor& merge_logit_BTK) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const int64_t groups = q_BTHd.size(2) / k_BTKd.size(2);
    const at::Tensor q = q_BTHd.contiguous(), k = k_BTKd.contiguous(), v = v_BTKd.contiguous();
    const at::Tensor bias_BHT = repeat_heads(bias_of(merge_logit_BTK), groups).transpose(1, 2);

    const auto [out_BHTd, lse_BHT] = at::_scaled_dot_product_flash_attention_for_cpu(
        q.transpose(1, 2), repeat_heads(k, groups).transpose(1, 2),
        repeat_heads(v, groups).transpose(1, 2), 0.0, /*is_causal=*/true,
        /*attn_mask=*/bias_BHT.unsqueeze(2), scale_of(q));
    const at::Tensor out = out_BHTd.transpose(1, 2).contiguous();  // [B, T, H, d]
    const at::Tensor lse = lse_BHT.transpose(1, 2).contiguous();   // [B, T, H]
    const at::Tensor own = at::empty_like(lse);
    const at::Tensor log_merge = log_merge_next(merge_logit_BTK).contiguous();
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "dmc_attention", [&] {
      kernels::repair_forward<scalar_t>(
          shape_of(q, k.size(2)), q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
          v.const_data_ptr<scalar_t>(), log_merge.const_data_ptr<scalar_t>(),
          out.mutable_data_ptr<scalar_t>(), lse.mutable_data_ptr<scalar_t>(),
          own.mutable_data_ptr<scalar_t>());
    });
    context->save_for_backward({q, k, v, merge_logit_BTK, out, lse, own});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &logit_BTK = saved[3];
    const at::Tensor &out = saved[4], &lse = saved[5], &own = saved[6];
    const at::Tensor grad = gradients[0].contiguous();
    const at::Tensor bias = bias_of(logit_BTK).contiguous();
    const kernels::RepairShape shape = shape_of(q, k.size(2));
    at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    at::Tensor dlog_merge = at::empty_like(bias), dbias = at::empty_like(bias);

    // The bias rides in a channel of its own, so that the stock kernel gives its gradient too.
    const auto padded = [&] {
      return at::empty({shape.batch, shape.tokens, shape.heads, shape.dim + 1}, q.options());
    };
    const at::Tensor q_pad = padded(), k_pad = padded(), v_pad = padded(), out_pad = padded(),
                     grad_pad = padded();
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "dmc_attention_backward", [&] {
      const auto read = [](const at::Tensor& t) { return t.const_data_ptr<scalar_t>(); };
      const auto write = [](const at::Tensor& t) { return t.mutable_data_ptr<scalar_t>(); };
      kernels::pad_for_backward<scalar_t>(
          shape, read(q), read(k), read(v), read(bias), read(out), read(grad),
          {write(q_pad), write(k_pad), write(v_pad), write(out_pad), write(grad_pad)});
      const auto by_head = [](const at::Tensor& t) { return t.transpose(1, 2); };
      const auto [dq_BHTe, dk_BHTe, dv_BHTe] =
          at::_scaled_dot_product_flash_attention_for_cpu_backward(
              by_head(grad_pad), by_head(q_pad), by_head(k_pad), by_head(v_pad), by_head(out_pad),
              by_head(lse), 0.0, /*is_causal=*/true, {}, scale_of(q));
      const at::Tensor dq_pad = by_head(dq_BHTe).contiguous(),
                       dk_pad = by_head(dk_BHTe).contiguous(),
                       dv_pad = by_head(dv_BHTe).contiguous();
      kernels::repair_backward<scalar_t>(shape, read(q), read(k), read(v), read(out), read(grad),
                                         read(own), read(lse), read(dq_pad), read(dk_pad),
                                         read(dv_pad), write(dq), write(dk), write(dv),
                                         write(dlog_merge), write(dbias));
    });
    return {dq, dk, dv, of_previous_token(dlog_merge, dbias, logit_BTK.sigmoid())};
  }

  // Gradient of the logits: d log(alpha) = 1 - alpha, d log(1 - alpha) = -alpha, and what stands at
  // token i is about the decision of token i + 1.
  static at::Tensor of_previous_token(const at::Tensor& dlog_merge, const at::Tensor& dbias,
                                      const at::Tensor& alpha_BTK) {
    const int64_t T = alpha_BTK.size(1);
    const at::Tensor next = alpha_BTK.narrow(1, 1, T - 1);
    const at::Tensor dlogit = at::zeros_like(alpha_BTK);
    dlogit.narrow(1, 1, T - 1)
        .copy_(dlog_merge.narrow(1, 0, T - 1) * (1 - next) - dbias.narrow(1, 0, T - 1) * next);
    return dlogit;
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

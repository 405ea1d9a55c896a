#include "ops/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <optional>

#include "base/error.h"
#include "kernels/training_attention.h"
#include "ops/precision.h"
#include "ops/split_attention.h"

namespace dmc::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A logit of +inf would give a bias of -inf, and a row whose keys all have it gives NaN.
// exp(-1e4) is 0 in every dtype we train in, so this floor changes no result.
constexpr double kLowestBias = -1e4;

// [B, T, K, ...] to [B, T, H, ...]: the KV head's value for each query head of its group.
at::Tensor repeat_heads(const at::Tensor& x, int64_t groups) {
  return groups == 1 ? x : x.repeat_interleave(groups, 2);
}

// log(1 - alpha of the next token); 0 for the last one, which has no next.
at::Tensor bias_of(const at::Tensor& logit_BTK) {
  const at::Tensor bias = at::log_sigmoid(-logit_BTK);
  const int64_t T = bias.size(1);
  return at::cat({bias.narrow(1, 1, T - 1), at::zeros_like(bias.narrow(1, 0, 1))}, 1)
      .clamp_min(kLowestBias);
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(-1))); }

kernels::AttentionShape shape_of(const at::Tensor& q_BTHd, int64_t kv_heads, int64_t delay) {
  return {q_BTHd.size(0), q_BTHd.size(1), q_BTHd.size(2), kv_heads, q_BTHd.size(3), delay};
}

// An undefined bias means none.
template <class T>
kernels::AttentionInputs<T> inputs_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& bias) {
  return {q.const_data_ptr<T>(), k.const_data_ptr<T>(), v.const_data_ptr<T>(),
          bias.defined() ? bias.const_data_ptr<T>() : nullptr};
}

struct BiasedAttention : torch::autograd::Function<BiasedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHd,
                            const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                            const std::optional<at::Tensor>& bias_BTK, int64_t delay) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor q = q_BTHd.contiguous(), k = k_BTKd.contiguous(), v = v_BTKd.contiguous();
    const at::Tensor bias = bias_BTK ? bias_BTK->contiguous() : at::Tensor();
    const at::Tensor out = at::empty_like(q);
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options());
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "training_attention", [&] {
      kernels::training_attention(shape_of(q, k.size(2), delay), inputs_of<scalar_t>(q, k, v, bias),
                                  out.mutable_data_ptr<scalar_t>(),
                                  lse.mutable_data_ptr<scalar_t>());
    });
    context->saved_data["delay"] = delay;
    context->save_for_backward({q, k, v, bias, out, lse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3];
    const at::Tensor &out = saved[4], &lse = saved[5], grad = gradients[0].contiguous();
    const int64_t delay = context->saved_data["delay"].toInt();
    const at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    const at::Tensor dbias = bias.defined() ? at::empty_like(bias) : at::Tensor();
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "training_attention_backward", [&] {
      const auto write = [](const at::Tensor& t) {
        return t.defined() ? t.mutable_data_ptr<scalar_t>() : nullptr;
      };
      kernels::training_attention_backward<scalar_t>(
          shape_of(q, k.size(2), delay), inputs_of<scalar_t>(q, k, v, bias),
          out.const_data_ptr<scalar_t>(), lse.const_data_ptr<scalar_t>(),
          grad.const_data_ptr<scalar_t>(), {write(dq), write(dk), write(dv), write(dbias)});
    });
    return {dq, dk, dv, dbias, at::Tensor()};
  }
};

// Our own kernel computes in f32 and f64.
at::Tensor on_cpu(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                  const std::optional<at::Tensor>& bias_BTK, int64_t delay) {
  return BiasedAttention::apply(at_least_f32(q_BTHd), at_least_f32(k_BTKd), at_least_f32(v_BTKd),
                                bias_BTK, delay)
      .to(q_BTHd.scalar_type());
}

// LibTorch's kernels know 16-bit types alone.
at::Tensor on_gpu(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                  const std::optional<at::Tensor>& bias_BTK, int64_t delay) {
  const bool narrow = q_BTHd.element_size() == 2;
  return split_attention(narrow ? flash_pair() : plain_pair(), q_BTHd, k_BTKd, v_BTKd,
                         bias_BTK.value_or(at::Tensor()), delay);
}

at::Tensor attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                     const std::optional<at::Tensor>& bias_BTK, int64_t delay) {
  const auto implementation = q_BTHd.is_cpu() ? on_cpu : on_gpu;
  return implementation(q_BTHd, k_BTKd, v_BTKd, bias_BTK, delay);
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd) {
  return attention(q_BTHd, k_BTKd, v_BTKd, std::nullopt, 0);
}

at::Tensor decision_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                              const at::Tensor& v_BTKd, const at::Tensor& logit_BTK,
                              int64_t delay) {
  DMC_CHECK(q_BTHd.dim() == 4 && k_BTKd.sizes() == v_BTKd.sizes());
  DMC_CHECK(q_BTHd.size(2) % k_BTKd.size(2) == 0);
  DMC_CHECK(logit_BTK.sizes() == k_BTKd.sizes().slice(0, 3));
  DMC_CHECK(logit_BTK.scalar_type() == at_least_f32(q_BTHd).scalar_type());
  DMC_CHECK(delay >= 0);
  return attention(q_BTHd, k_BTKd, v_BTKd, bias_of(logit_BTK), delay);
}

at::Tensor decision_attention_literal(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                      const at::Tensor& v_BTKd, const at::Tensor& logit_BTK,
                                      int64_t delay) {
  const int64_t groups = q_BTHd.size(2) / k_BTKd.size(2), T = q_BTHd.size(1);
  const auto by_head = [&](const at::Tensor& x) { return repeat_heads(x, groups).transpose(1, 2); };
  const at::Tensor q = q_BTHd.transpose(1, 2), k = by_head(k_BTKd), v = by_head(v_BTKd);
  const at::Tensor bias_BH1T = by_head(bias_of(logit_BTK)).unsqueeze(2);
  const at::Tensor position = at::arange(T, q.options().dtype(at::kLong));
  const at::Tensor age_TT = position.unsqueeze(1) - position.unsqueeze(0);  // of key for query
  const at::Tensor future = age_TT < 0, near = age_TT <= delay;
  const at::Tensor scores =
      at::matmul(q, k.transpose(2, 3)) * scale_of(q) + bias_BH1T.masked_fill(near, 0.0);
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor weights = at::softmax(scores.masked_fill(future, minus_infinity), -1);
  return at::matmul(weights, v).transpose(1, 2);
}

}  // namespace dmc::ops

#include "ops/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
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

template <class T>
const T* read(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<T>() : nullptr;
}
template <class T>
T* write(const at::Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
}

at::Tensor empty_like_defined(const at::Tensor& x) {
  return x.defined() ? at::empty_like(x) : at::Tensor();
}

at::Tensor contiguous(const std::optional<at::Tensor>& x) {
  return x ? x->contiguous() : at::Tensor();
}

// What attention reads; undefined tensors are null.
struct Operands {
  at::Tensor q_BTHd, k_BTKd, v_BTKd, bias_BTK, far_k_BTKd, far_v_BTKd;

  template <class T>
  kernels::AttentionInputs<T> inputs() const {
    return {read<T>(q_BTHd),   read<T>(k_BTKd),     read<T>(v_BTKd),
            read<T>(bias_BTK), read<T>(far_k_BTKd), read<T>(far_v_BTKd)};
  }
  kernels::AttentionShape shape(int64_t delay) const {
    return {q_BTHd.size(0), q_BTHd.size(1), q_BTHd.size(2), k_BTKd.size(2), q_BTHd.size(3), delay};
  }
};

struct BiasedAttention : torch::autograd::Function<BiasedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHd,
                            const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                            const std::optional<at::Tensor>& bias_BTK,
                            const std::optional<at::Tensor>& far_k_BTKd,
                            const std::optional<at::Tensor>& far_v_BTKd, int64_t delay) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Operands x{q_BTHd.contiguous(),  k_BTKd.contiguous(),    v_BTKd.contiguous(),
                     contiguous(bias_BTK), contiguous(far_k_BTKd), contiguous(far_v_BTKd)};
    const at::Tensor& q = x.q_BTHd;
    const at::Tensor out = at::empty_like(q);
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options());
    AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "training_attention", [&] {
      kernels::training_attention(x.shape(delay), x.inputs<scalar_t>(), write<scalar_t>(out),
                                  write<scalar_t>(lse));
    });
    context->saved_data["delay"] = delay;
    context->save_for_backward(
        {q, x.k_BTKd, x.v_BTKd, x.bias_BTK, x.far_k_BTKd, x.far_v_BTKd, out, lse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const Operands x{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
    const at::Tensor &out = saved[6], &lse = saved[7], grad = gradients[0].contiguous();
    const int64_t delay = context->saved_data["delay"].toInt();
    const Operands to{at::empty_like(x.q_BTHd),         at::empty_like(x.k_BTKd),
                      at::empty_like(x.v_BTKd),         empty_like_defined(x.bias_BTK),
                      empty_like_defined(x.far_k_BTKd), empty_like_defined(x.far_v_BTKd)};
    AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "training_attention_backward", [&] {
      kernels::training_attention_backward<scalar_t>(
          x.shape(delay), x.inputs<scalar_t>(), read<scalar_t>(out), read<scalar_t>(lse),
          read<scalar_t>(grad),
          {write<scalar_t>(to.q_BTHd), write<scalar_t>(to.k_BTKd), write<scalar_t>(to.v_BTKd),
           write<scalar_t>(to.bias_BTK), write<scalar_t>(to.far_k_BTKd),
           write<scalar_t>(to.far_v_BTKd)});
    });
    return {to.q_BTHd,     to.k_BTKd,     to.v_BTKd,   to.bias_BTK,
            to.far_k_BTKd, to.far_v_BTKd, at::Tensor()};
  }
};

std::optional<at::Tensor> at_least_f32(const std::optional<at::Tensor>& x) {
  return x ? std::optional(ops::at_least_f32(*x)) : std::nullopt;
}

// Our own kernel computes in f32 and f64.
at::Tensor on_cpu(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                  const std::optional<at::Tensor>& bias_BTK, const FarKeysAndValues& far,
                  int64_t delay) {
  return BiasedAttention::apply(ops::at_least_f32(q_BTHd), ops::at_least_f32(k_BTKd),
                                ops::at_least_f32(v_BTKd), bias_BTK, at_least_f32(far.k_BTKd),
                                at_least_f32(far.v_BTKd), delay)
      .to(q_BTHd.scalar_type());
}

// LibTorch's kernels know 16-bit types alone.
at::Tensor on_gpu(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                  const std::optional<at::Tensor>& bias_BTK, const FarKeysAndValues& far,
                  int64_t delay) {
  const bool narrow = q_BTHd.element_size() == 2;
  return split_attention(narrow ? flash_pair() : plain_pair(), q_BTHd, k_BTKd, v_BTKd,
                         bias_BTK.value_or(at::Tensor()), delay, far);
}

at::Tensor attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                     const std::optional<at::Tensor>& bias_BTK, const FarKeysAndValues& far,
                     int64_t delay) {
  const auto implementation = q_BTHd.is_cpu() ? on_cpu : on_gpu;
  return implementation(q_BTHd, k_BTKd, v_BTKd, bias_BTK, far, delay);
}

void check_shapes(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                  const at::Tensor& logit_BTK) {
  DMC_CHECK(q_BTHd.dim() == 4 && k_BTKd.sizes() == v_BTKd.sizes());
  DMC_CHECK(q_BTHd.size(2) % k_BTKd.size(2) == 0);
  DMC_CHECK(logit_BTK.sizes() == k_BTKd.sizes().slice(0, 3));
  DMC_CHECK(logit_BTK.scalar_type() == ops::at_least_f32(q_BTHd).scalar_type());
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd) {
  return attention(q_BTHd, k_BTKd, v_BTKd, std::nullopt, {}, 0);
}

at::Tensor decision_attention(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                              const at::Tensor& v_BTKd, const at::Tensor& logit_BTK,
                              int64_t delay) {
  check_shapes(q_BTHd, k_BTKd, v_BTKd, logit_BTK);
  DMC_CHECK(delay >= 0);
  return attention(q_BTHd, k_BTKd, v_BTKd, bias_of(logit_BTK), {}, delay);
}

at::Tensor delayed_attention(const at::Tensor& q_BTHd, const NearAndFar& k_BTKd,
                             const NearAndFar& v_BTKd, const at::Tensor& logit_BTK, int64_t delay) {
  check_shapes(q_BTHd, k_BTKd.near, v_BTKd.near, logit_BTK);
  check_shapes(q_BTHd, k_BTKd.far, v_BTKd.far, logit_BTK);
  DMC_CHECK(delay >= 0);
  return attention(q_BTHd, k_BTKd.near, v_BTKd.near, bias_of(logit_BTK), {k_BTKd.far, v_BTKd.far},
                   delay);
}

at::Tensor decision_attention_literal(const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                      const at::Tensor& v_BTKd, const at::Tensor& logit_BTK,
                                      int64_t delay) {
  return delayed_attention_literal(q_BTHd, {k_BTKd, k_BTKd}, {v_BTKd, v_BTKd}, logit_BTK, delay);
}

at::Tensor delayed_attention_literal(const at::Tensor& q_BTHd, const NearAndFar& k_BTKd,
                                     const NearAndFar& v_BTKd, const at::Tensor& logit_BTK,
                                     int64_t delay) {
  const int64_t groups = q_BTHd.size(2) / k_BTKd.near.size(2), T = q_BTHd.size(1);
  const auto by_head = [&](const at::Tensor& x) { return repeat_heads(x, groups).transpose(1, 2); };
  const at::Tensor q = q_BTHd.transpose(1, 2);
  const at::Tensor bias_BH1T = by_head(bias_of(logit_BTK)).unsqueeze(2);
  const at::Tensor position = at::arange(T, q.options().dtype(at::kLong));
  const at::Tensor age_TT = position.unsqueeze(1) - position.unsqueeze(0);  // of key for query
  const at::Tensor far = age_TT >= delay;
  const auto products = [&](const at::Tensor& k) {
    return at::matmul(q, by_head(k).transpose(2, 3)) * scale_of(q_BTHd);
  };
  const at::Tensor scores = at::where(far, products(k_BTKd.far), products(k_BTKd.near)) +
                            bias_BH1T.masked_fill(age_TT <= delay, 0.0);
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor weights = at::softmax(scores.masked_fill(age_TT < 0, minus_infinity), -1);
  const at::Tensor seen_far =
      at::matmul(weights.masked_fill(far.logical_not(), 0.0), by_head(v_BTKd.far));
  const at::Tensor seen_near = at::matmul(weights.masked_fill(far, 0.0), by_head(v_BTKd.near));
  return (seen_far + seen_near).transpose(1, 2);
}

}  // namespace dmc::ops

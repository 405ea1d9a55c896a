#include "ops/pool.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/pooling.h"

namespace dmc::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::PoolShape shape_of(const at::Tensor& k_BTKd, int64_t window) {
  return {k_BTKd.size(0), k_BTKd.size(1), k_BTKd.size(2), k_BTKd.size(3), static_cast<int>(window)};
}

struct Pool : torch::autograd::Function<Pool> {
  static variable_list forward(AutogradContext* context, const at::Tensor& k_BTKd,
                               const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK,
                               const at::Tensor& importance_logit_BTK, int64_t window) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor k = k_BTKd.contiguous(), v = v_BTKd.contiguous();
    const at::Tensor alpha = merge_logit_BTK.sigmoid().contiguous();
    const at::Tensor omega = importance_logit_BTK.sigmoid().contiguous();
    const at::Tensor k_out = at::empty_like(k), v_out = at::empty_like(v);
    const at::Tensor total = at::empty_like(alpha);
    AT_DISPATCH_FLOATING_TYPES(k.scalar_type(), "pool", [&] {
      kernels::pool_forward<scalar_t>(
          shape_of(k, window), k.const_data_ptr<scalar_t>(), v.const_data_ptr<scalar_t>(),
          alpha.const_data_ptr<scalar_t>(), omega.const_data_ptr<scalar_t>(),
          k_out.mutable_data_ptr<scalar_t>(), v_out.mutable_data_ptr<scalar_t>(),
          total.mutable_data_ptr<scalar_t>());
    });
    context->save_for_backward({k, v, alpha, omega, k_out, v_out, total});
    context->saved_data["window"] = window;
    return {k_out, v_out};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &k = saved[0], &v = saved[1], &alpha = saved[2], &omega = saved[3];
    const at::Tensor gk = gradients[0].contiguous(), gv = gradients[1].contiguous();
    const at::Tensor dk = at::empty_like(k), dv = at::empty_like(v);
    const at::Tensor dmerge = at::empty_like(alpha), dimportance = at::empty_like(omega);
    AT_DISPATCH_FLOATING_TYPES(k.scalar_type(), "pool_backward", [&] {
      kernels::pool_backward<scalar_t>(
          shape_of(k, context->saved_data["window"].toInt()), k.const_data_ptr<scalar_t>(),
          v.const_data_ptr<scalar_t>(), alpha.const_data_ptr<scalar_t>(),
          omega.const_data_ptr<scalar_t>(), saved[4].const_data_ptr<scalar_t>(),
          saved[5].const_data_ptr<scalar_t>(), saved[6].const_data_ptr<scalar_t>(),
          gk.const_data_ptr<scalar_t>(), gv.const_data_ptr<scalar_t>(),
          dk.mutable_data_ptr<scalar_t>(), dv.mutable_data_ptr<scalar_t>(),
          dmerge.mutable_data_ptr<scalar_t>(), dimportance.mutable_data_ptr<scalar_t>());
    });
    return {dk, dv, dmerge, dimportance, at::Tensor()};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> pool(const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                                       const at::Tensor& merge_logit_BTK,
                                       const at::Tensor& importance_logit_BTK, int64_t window) {
  DMC_CHECK(k_BTKd.dim() == 4 && k_BTKd.sizes() == v_BTKd.sizes());
  DMC_CHECK(merge_logit_BTK.sizes() == k_BTKd.sizes().slice(0, 3));
  DMC_CHECK(importance_logit_BTK.sizes() == merge_logit_BTK.sizes());
  const variable_list out =
      Pool::apply(k_BTKd, v_BTKd, merge_logit_BTK, importance_logit_BTK, window);
  return {out[0], out[1]};
}

}  // namespace dmc::ops

#include "ops/pool.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "ops/pool_backend.h"
#include "ops/precision.h"

namespace dmc::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const PoolBackend& backend_of(const at::Tensor& x) {
  return x.is_cpu() ? cpu_pooling() : cuda_pooling();
}

kernels::PoolShape shape_of(const at::Tensor& k_BTKd, int64_t window, bool newest_weighs_one) {
  return {k_BTKd.size(0), k_BTKd.size(1),           k_BTKd.size(2),
          k_BTKd.size(3), static_cast<int>(window), newest_weighs_one};
}

struct Pool : torch::autograd::Function<Pool> {
  static variable_list forward(AutogradContext* context, const at::Tensor& k_BTKd,
                               const at::Tensor& v_BTKd, const at::Tensor& merge_logit_BTK,
                               const at::Tensor& importance_logit_BTK, int64_t window,
                               bool newest_weighs_one) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    PoolForward x{shape_of(k_BTKd, window, newest_weighs_one), k_BTKd.contiguous(),
                  v_BTKd.contiguous()};
    x.alpha = merge_logit_BTK.sigmoid().contiguous();
    x.omega = importance_logit_BTK.sigmoid().contiguous();
    x.k_out = at::empty_like(x.k);
    x.v_out = at::empty_like(x.v);
    x.total = at::empty_like(x.alpha);
    backend_of(x.k).forward(x);
    context->save_for_backward({x.k, x.v, x.alpha, x.omega, x.k_out, x.v_out, x.total});
    context->saved_data["window"] = window;
    context->saved_data["newest_weighs_one"] = newest_weighs_one;
    return {x.k_out, x.v_out};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const PoolForward x{shape_of(saved[0], context->saved_data["window"].toInt(),
                                 context->saved_data["newest_weighs_one"].toBool()),
                        saved[0],
                        saved[1],
                        saved[2],
                        saved[3],
                        saved[4],
                        saved[5],
                        saved[6]};
    const PoolBackward y{gradients[0].contiguous(), gradients[1].contiguous(),
                         at::empty_like(x.k),       at::empty_like(x.v),
                         at::empty_like(x.alpha),   at::empty_like(x.omega)};
    backend_of(x.k).backward(x, y);
    return {y.dk, y.dv, y.dmerge_logit, y.dimportance_logit, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> pool(const at::Tensor& k_BTKd, const at::Tensor& v_BTKd,
                                       const at::Tensor& merge_logit_BTK,
                                       const at::Tensor& importance_logit_BTK, int64_t window,
                                       bool newest_weighs_one) {
  DMC_CHECK(k_BTKd.dim() == 4 && k_BTKd.sizes() == v_BTKd.sizes());
  DMC_CHECK(merge_logit_BTK.sizes() == k_BTKd.sizes().slice(0, 3));
  DMC_CHECK(importance_logit_BTK.sizes() == merge_logit_BTK.sizes());
  const auto computed = [](const at::Tensor& x) { return x.is_cpu() ? at_least_f32(x) : x; };
  const variable_list out = Pool::apply(computed(k_BTKd), computed(v_BTKd), merge_logit_BTK,
                                        importance_logit_BTK, window, newest_weighs_one);
  return {out[0].to(k_BTKd.scalar_type()), out[1].to(v_BTKd.scalar_type())};
}

}  // namespace dmc::ops

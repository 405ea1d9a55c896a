#include <ATen/Dispatch.h>

#include "ops/pool_backend.h"

namespace dmc::ops {
namespace {

void forward(const PoolForward& x) {
  AT_DISPATCH_FLOATING_TYPES(x.k.scalar_type(), "pool", [&] {
    kernels::pool_forward<scalar_t>(
        x.shape, x.k.const_data_ptr<scalar_t>(), x.v.const_data_ptr<scalar_t>(),
        x.alpha.const_data_ptr<scalar_t>(), x.omega.const_data_ptr<scalar_t>(),
        x.k_out.mutable_data_ptr<scalar_t>(), x.v_out.mutable_data_ptr<scalar_t>(),
        x.total.mutable_data_ptr<scalar_t>());
  });
}

void backward(const PoolForward& x, const PoolBackward& y) {
  AT_DISPATCH_FLOATING_TYPES(x.k.scalar_type(), "pool_backward", [&] {
    kernels::pool_backward<scalar_t>(
        x.shape, x.k.const_data_ptr<scalar_t>(), x.v.const_data_ptr<scalar_t>(),
        x.alpha.const_data_ptr<scalar_t>(), x.omega.const_data_ptr<scalar_t>(),
        x.k_out.const_data_ptr<scalar_t>(), x.v_out.const_data_ptr<scalar_t>(),
        x.total.const_data_ptr<scalar_t>(), y.gk.const_data_ptr<scalar_t>(),
        y.gv.const_data_ptr<scalar_t>(), y.dk.mutable_data_ptr<scalar_t>(),
        y.dv.mutable_data_ptr<scalar_t>(), y.dmerge_logit.mutable_data_ptr<scalar_t>(),
        y.dimportance_logit.mutable_data_ptr<scalar_t>());
  });
}

}  // namespace

const PoolBackend& cpu_pooling() {
  static constexpr PoolBackend kBackend{forward, backward};
  return kBackend;
}

}  // namespace dmc::ops

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "base/error.h"
#include "kernels/cuda/rows/pooling.h"
#include "ops/pool.h"
#include "ops/pool_backend.h"

namespace dmc::ops {
namespace {

// LibTorch's stream too, as long as nobody asks it for another one, which we never do.
constexpr CUstream_st* kDefaultStream = nullptr;

template <class T>
T* pointer(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

template <class T>
kernels::cuda::PoolTensors<T> tensors_of(const PoolForward& x) {
  DMC_CHECK(x.alpha.scalar_type() == at::kFloat && x.omega.scalar_type() == at::kFloat);
  return {.shape = x.shape,
          .k = pointer<T>(x.k),
          .v = pointer<T>(x.v),
          .alpha = pointer<float>(x.alpha),
          .omega = pointer<float>(x.omega),
          .k_out = pointer<T>(x.k_out),
          .v_out = pointer<T>(x.v_out),
          .total = pointer<float>(x.total)};
}

template <class T>
void forward_of(const PoolForward& x) {
  kernels::cuda::pool_forward(tensors_of<T>(x), kDefaultStream);
}

template <class T>
void backward_of(const PoolForward& x, const PoolBackward& y) {
  const at::Tensor pull = at::empty({x.alpha.numel(), x.shape.window}, x.alpha.options());
  kernels::cuda::PoolTensors<T> tensors = tensors_of<T>(x);
  tensors.gk = pointer<T>(y.gk);
  tensors.gv = pointer<T>(y.gv);
  tensors.dk = pointer<T>(y.dk);
  tensors.dv = pointer<T>(y.dv);
  tensors.dalpha_logit = pointer<float>(y.dmerge_logit);
  tensors.domega_logit = pointer<float>(y.dimportance_logit);
  tensors.pull = pointer<float>(pull);
  kernels::cuda::pool_backward(tensors, kDefaultStream);
}

bool is_bf16(const PoolForward& x) {
  const at::ScalarType type = x.k.scalar_type();
  DMC_CHECK(type == at::kBFloat16 || type == at::kFloat);
  return type == at::kBFloat16;
}

void forward(const PoolForward& x) {
  const c10::DeviceGuard on_its_device(x.k.device());
  is_bf16(x) ? forward_of<__nv_bfloat16>(x) : forward_of<float>(x);
}

void backward(const PoolForward& x, const PoolBackward& y) {
  const c10::DeviceGuard on_its_device(x.k.device());
  is_bf16(x) ? backward_of<__nv_bfloat16>(x, y) : backward_of<float>(x, y);
}

}  // namespace

bool can_pool_on_cuda() { return kernels::cuda::has_pooling(); }

const PoolBackend& cuda_pooling() {
  static constexpr PoolBackend kBackend{forward, backward};
  return kBackend;
}

}  // namespace dmc::ops

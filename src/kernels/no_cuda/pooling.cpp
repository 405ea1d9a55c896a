// In the place of row_ops.cu's pooling where the program is built without CUDA.
#include "kernels/cuda/rows/pooling.h"

#include "kernels/cuda/lanes/team.h"

struct __nv_bfloat16 {
  explicit __nv_bfloat16(float x) : bits(dmc::f32_to_bf16(x)) {}
  explicit operator float() const { return dmc::bf16_to_f32(bits); }
  uint16_t bits;
};

namespace dmc::kernels::cuda {
namespace {

template <class T>
void each_stream(const PoolTensors<T>& x, void (*fn)(const PoolTensors<T>&, int64_t)) {
  for (int64_t stream = 0; stream < x.shape.batch * x.shape.heads; ++stream) fn(x, stream);
}

template <class T>
void each_token(const PoolTensors<T>& x, void (*fn)(const PoolTensors<T>&, int64_t, int64_t)) {
  for (int64_t stream = 0; stream < x.shape.batch * x.shape.heads; ++stream) {
    for (int64_t t = 0; t < x.shape.tokens; ++t) fn(x, t, stream);
  }
}

}  // namespace

bool has_pooling() { return false; }

template <class T>
void pool_forward(const PoolTensors<T>& tensors, CUstream_st*) {
  if (tensors.shape.window == 0) return each_stream(tensors, pool_scan_forward<SoloTeam, T>);
  each_token(tensors, pool_forward_token<SoloTeam, T>);
}

template <class T>
void pool_backward(const PoolTensors<T>& tensors, CUstream_st*) {
  if (tensors.shape.window == 0) return each_stream(tensors, pool_scan_backward<SoloTeam, T>);
  each_token(tensors, pool_pull_token<SoloTeam, T>);
  each_token(tensors, pool_gradient_token<SoloTeam, T>);
}

template void pool_forward(const PoolTensors<float>&, CUstream_st*);
template void pool_forward(const PoolTensors<__nv_bfloat16>&, CUstream_st*);
template void pool_backward(const PoolTensors<float>&, CUstream_st*);
template void pool_backward(const PoolTensors<__nv_bfloat16>&, CUstream_st*);

}  // namespace dmc::kernels::cuda

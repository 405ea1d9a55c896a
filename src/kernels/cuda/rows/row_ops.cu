#include "kernels/cuda/rows/row_ops.h"

#include <cuda_bf16.h>

#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/lanes/half.cuh"
#include "kernels/cuda/lanes/warp.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rows/norm.h"
#include "kernels/cuda/rows/pooling.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block that gives each of them an item
constexpr int kThreads = kWarps * kLanes;

unsigned blocks_for(int64_t items) { return static_cast<unsigned>((items + kWarps - 1) / kWarps); }

__device__ int64_t item_of_warp() { return int64_t{blockIdx.x} * kWarps + threadIdx.x / kLanes; }

template <class In>
__global__ void split_kernel(const __grid_constant__ HeadsSpec spec,
                             const __grid_constant__ HeadsRows<In> io, int64_t rows) {
  const int64_t item = item_of_warp();
  if (item >= rows * spec.kv_heads) return;
  split_head<WarpTeam>(spec, io, item / spec.kv_heads, static_cast<int>(item % spec.kv_heads));
}

constexpr int kNormThreads = 256;

template <class Out>
__global__ void __launch_bounds__(kNormThreads)
    norm_kernel(const __grid_constant__ NormSpec spec, float* x, const float* y, Out* out) {
  const int64_t at = int64_t{blockIdx.x} * spec.width;
  add_and_norm_row<BlockTeam<kNormThreads>>(x + at, y == nullptr ? nullptr : y + at, spec.width,
                                            spec.centred, spec.eps, spec.weight, spec.bias,
                                            out + at);
}

// One warp for each (token, stream). Neighbouring tokens share most of their window, which the L1
// cache then serves: warps of a block have neighbouring tokens.
template <class T, void (*kToken)(const PoolTensors<T>&, int64_t, int64_t)>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(const __grid_constant__ PoolTensors<T> tensors) {
  const int64_t token = item_of_warp();
  if (token < tensors.shape.tokens) kToken(tensors, token, blockIdx.y);
}

// The same for one that takes all tokens of a stream.
template <class T, void (*kStream)(const PoolTensors<T>&, int64_t)>
__global__ void __launch_bounds__(kThreads)
    scan_kernel(const __grid_constant__ PoolTensors<T> tensors) {
  const int64_t stream = item_of_warp();
  if (stream < tensors.shape.batch * tensors.shape.heads) kStream(tensors, stream);
}

template <class T>
Grid scan_grid(const PoolTensors<T>& x) {
  DMC_CHECK(x.shape.dim <= kMostPooledDim);
  return {{blocks_for(x.shape.batch * x.shape.heads)}, kThreads};
}

template <class T>
Grid pool_grid(const PoolTensors<T>& x) {
  return {{blocks_for(x.shape.tokens), static_cast<unsigned>(x.shape.batch * x.shape.heads)},
          kThreads};
}

}  // namespace

template <class In>
void split_heads(const HeadsSpec& spec, const HeadsRows<In>& io, int64_t rows, Stream stream) {
  if (rows == 0) return;
  launch("launching the split into heads", split_kernel<In>,
         {blocks_for(rows * spec.kv_heads), kThreads}, stream, spec, io, rows);
}

template <class Out>
void add_and_norm(const NormSpec& spec, float* x, const float* y, int64_t rows, Out* out,
                  Stream stream) {
  if (rows == 0) return;
  launch("launching a norm", norm_kernel<Out>, {static_cast<unsigned>(rows), kNormThreads}, stream,
         spec, x, y, out);
}

bool has_pooling() { return true; }

template <class T>
void pool_forward(const PoolTensors<T>& tensors, Stream stream) {
  if (tensors.shape.window == 0) {
    launch("launching pooling", scan_kernel<T, pool_scan_forward<WarpTeam, T>>, scan_grid(tensors),
           stream, tensors);
    return;
  }
  launch("launching pooling", pool_kernel<T, pool_forward_token<WarpTeam, T>>, pool_grid(tensors),
         stream, tensors);
}

template <class T>
void pool_backward(const PoolTensors<T>& tensors, Stream stream) {
  if (tensors.shape.window == 0) {
    launch("launching the gradient of pooling", scan_kernel<T, pool_scan_backward<WarpTeam, T>>,
           scan_grid(tensors), stream, tensors);
    return;
  }
  launch("launching what pooling pulls", pool_kernel<T, pool_pull_token<WarpTeam, T>>,
         pool_grid(tensors), stream, tensors);
  launch("launching the gradient of pooling", pool_kernel<T, pool_gradient_token<WarpTeam, T>>,
         pool_grid(tensors), stream, tensors);
}

template void split_heads(const HeadsSpec&, const HeadsRows<float>&, int64_t, Stream);
template void split_heads(const HeadsSpec&, const HeadsRows<__nv_bfloat16>&, int64_t, Stream);
template void add_and_norm(const NormSpec&, float*, const float*, int64_t, float*, Stream);
template void add_and_norm(const NormSpec&, float*, const float*, int64_t, __nv_bfloat16*, Stream);
template void add_and_norm(const NormSpec&, float*, const float*, int64_t, Half*, Stream);
template void pool_forward(const PoolTensors<float>&, Stream);
template void pool_forward(const PoolTensors<__nv_bfloat16>&, Stream);
template void pool_backward(const PoolTensors<float>&, Stream);
template void pool_backward(const PoolTensors<__nv_bfloat16>&, Stream);

}  // namespace dmc::kernels::cuda

#include "kernels/cuda/rows/model_ops.h"

#include <cuda_bf16.h>

#include "kernels/cuda/copy_stream.h"
#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/lanes/half.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kThreads = 256;  // of a block that has a row, or a run of numbers

unsigned blocks_for(int64_t count, int64_t in_block) {
  return static_cast<unsigned>((count + in_block - 1) / in_block);
}

template <class In>
__global__ void embed_kernel(const __grid_constant__ EmbeddingTable<In> table,
                             const __grid_constant__ EmbeddingSums sums, const int32_t* tokens,
                             const int32_t* positions, float* x) {
  const int64_t row = blockIdx.x;
  embed_row<BlockTeam<kThreads>>(table, tokens[row], sums, positions[row], x + row * table.width);
}

template <class Out>
__global__ void activate_kernel(Activation kind, const float* from, int64_t width, Out* out) {
  const int64_t row = blockIdx.x;
  activate_row<BlockTeam<kThreads>>(kind, from + row * activation_inputs(kind) * width, width,
                                    out + row * width);
}

template <class Out>
__global__ void round_kernel(const float* from, int64_t count, Out* to) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) to[i] = static_cast<Out>(from[i]);
}

constexpr int kWidenedAtOnce = 16;  // by a thread

__global__ void widen_kernel(const int8_t* from, int64_t count, __nv_bfloat16* to) {
  const int64_t first = int64_t{blockIdx.x} * kThreads * kWidenedAtOnce + threadIdx.x;
  for (int n = 0; n < kWidenedAtOnce; ++n) {
    const int64_t i = first + n * kThreads;
    if (i < count) to[i] = static_cast<__nv_bfloat16>(static_cast<float>(from[i]));
  }
}

__global__ void spread_kernel(const float* bias, int64_t count, int64_t outputs, float* y) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) y[i] = bias[i % outputs];
}

__global__ void scale_kernel(const float* scales, const float* bias, int64_t count, int64_t outputs,
                             float* y) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  y[i] = y[i] * scales[i % outputs] + (bias != nullptr ? bias[i % outputs] : 0.0f);
}

// A warp has a sequence.
__global__ void hold_kernel(const __grid_constant__ HoldingSpec spec,
                            const __grid_constant__ Streams streams,
                            const __grid_constant__ Batch batch, const int32_t* tokens,
                            float* biases) {
  const int row = static_cast<int>(blockIdx.x);
  if (batch.rows[row] < 0) return;
  const float bias = held_bias<WarpTeam>(spec, streams, batch, row, tokens[row]);
  if (WarpTeam::lane() == 0) biases[row] = bias;
}

// A warp has a stream.
__global__ void copy_kernel(const __grid_constant__ CacheView cache,
                            const __grid_constant__ Batch two_rows, int head_dim, bool share) {
  const int layer = static_cast<int>(blockIdx.y), head = static_cast<int>(blockIdx.x);
  copy_stream<WarpTeam>(cache.pool, cache.stack, cache.streams, head_dim,
                        two_rows.stream(layer, head),
                        two_rows.stream(layer, two_rows.kv_heads + head), share);
}

}  // namespace

template <class In>
void embed(const EmbeddingTable<In>& table, const EmbeddingSums& sums, const int32_t* tokens,
           const int32_t* positions, int64_t rows, float* x, Stream stream) {
  if (rows == 0) return;
  launch("launching the embedding", embed_kernel<In>, {static_cast<unsigned>(rows), kThreads},
         stream, table, sums, tokens, positions, x);
}

template <class Out>
void activate(Activation kind, const float* from, int64_t rows, int64_t width, Out* out,
              Stream stream) {
  if (rows == 0) return;
  launch("launching the activation", activate_kernel<Out>, {static_cast<unsigned>(rows), kThreads},
         stream, kind, from, width, out);
}

template <class Out>
void round(const float* from, int64_t count, Out* to, Stream stream) {
  if (count == 0) return;
  launch("launching the rounding of activations", round_kernel<Out>,
         {blocks_for(count, kThreads), kThreads}, stream, from, count, to);
}

void hold_ratio(const HoldingSpec& spec, const Streams& streams, const Batch& batch,
                const int32_t* tokens, float* biases, Stream stream) {
  launch("launching the holding of a ratio", hold_kernel,
         {static_cast<unsigned>(batch.batch), kLanes}, stream, spec, streams, batch, tokens,
         biases);
}

void copy_row(const CacheView& cache, const Batch& two_rows, int layers, int head_dim, bool share,
              Stream stream) {
  const dim3 grid(static_cast<unsigned>(two_rows.kv_heads), static_cast<unsigned>(layers));
  launch("launching the copy of a sequence", copy_kernel, {grid, kLanes}, stream, cache, two_rows,
         head_dim, share);
}

void spread_bias(const float* bias, int64_t rows, int64_t outputs, float* y, Stream stream) {
  if (rows == 0) return;
  const int64_t count = rows * outputs;
  launch("launching the bias of a product", spread_kernel, {blocks_for(count, kThreads), kThreads},
         stream, bias, count, outputs, y);
}

void scale_outputs(const float* scales, const float* bias, int64_t rows, int64_t outputs, float* y,
                   Stream stream) {
  const int64_t count = rows * outputs;
  if (count == 0) return;
  launch("launching the scales of a product", scale_kernel, {blocks_for(count, kThreads), kThreads},
         stream, scales, bias, count, outputs, y);
}

void widen(const int8_t* from, int64_t count, std::byte* to, Stream stream) {
  if (count == 0) return;
  launch("launching the widening of weights", widen_kernel,
         {blocks_for(count, kThreads * kWidenedAtOnce), kThreads}, stream, from, count,
         reinterpret_cast<__nv_bfloat16*>(to));
}

template void embed(const EmbeddingTable<float>&, const EmbeddingSums&, const int32_t*,
                    const int32_t*, int64_t, float*, Stream);
template void embed(const EmbeddingTable<__nv_bfloat16>&, const EmbeddingSums&, const int32_t*,
                    const int32_t*, int64_t, float*, Stream);
template void embed(const EmbeddingTable<Half>&, const EmbeddingSums&, const int32_t*,
                    const int32_t*, int64_t, float*, Stream);
template void embed(const EmbeddingTable<int8_t>&, const EmbeddingSums&, const int32_t*,
                    const int32_t*, int64_t, float*, Stream);
template void round(const float*, int64_t, float*, Stream);
template void round(const float*, int64_t, __nv_bfloat16*, Stream);
template void round(const float*, int64_t, Half*, Stream);
template void activate(Activation, const float*, int64_t, int64_t, float*, Stream);
template void activate(Activation, const float*, int64_t, int64_t, __nv_bfloat16*, Stream);
template void activate(Activation, const float*, int64_t, int64_t, Half*, Stream);

}  // namespace dmc::kernels::cuda

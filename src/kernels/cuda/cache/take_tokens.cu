// One warp for each stream: what it does is a few hundred bytes of work, and streams are many.
#include "kernels/cuda/attention/slot_types.h"
#include "kernels/cuda/cache/late.h"
#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/lanes/warp.cuh"
#include "kernels/cuda/launch.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block

struct Cache {
  PagePool pool;
  PageStack stack;
  Streams streams;
  Batch batch;
};

// The item that this warp works on, or -1 if there is nothing for it.
__device__ int item_of_warp(const Batch& batch) {
  const int item = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kLanes);
  return item < batch.items() && batch.active(item) ? item : -1;
}

template <DType kType>
__global__ void take_kernel(const __grid_constant__ Cache cache, int layer, int head_dim,
                            const __grid_constant__ StepTokens tokens,
                            const __grid_constant__ RopeView rope) {
  const int item = item_of_warp(cache.batch);
  if (item < 0) return;
  take_step_token<kType, WarpTeam>(cache.pool, cache.stack, cache.streams, cache.batch, layer, item,
                                   head_dim, tokens, rope);
}

__global__ void release_kernel(const __grid_constant__ Cache cache) {
  const int item = item_of_warp(cache.batch);
  if (item < 0) return;
  release_stream<WarpTeam>(cache.pool, cache.stack, cache.streams,
                           cache.batch.stream(static_cast<int>(blockIdx.y), item));
}

constexpr int kCollectThreads = 1024;

__global__ void __launch_bounds__(kCollectThreads)
    collect_kernel(const __grid_constant__ PageStack stack) {
  collect_pages<BlockTeam<kCollectThreads>>(stack);
}

using TakeKernel = void (*)(Cache, int, int, StepTokens, RopeView);

TakeKernel take_kernel_for(DType type) {
  // [&], though nothing is captured: nvcc warns of the function pointer it could become without.
  return with_slot_type(type, [&]<DType kType>() -> TakeKernel { return take_kernel<kType>; });
}

unsigned blocks_for(const Batch& batch) {
  return static_cast<unsigned>((batch.items() + kWarps - 1) / kWarps);
}

}  // namespace

void take_tokens(const DecodeShape& shape, const PagePool& pool, const PageStack& stack,
                 const Streams& streams, const Batch& batch, int layer, const StepTokens& tokens,
                 const RopeView& rope, Stream stream) {
  launch("launching append or merge", take_kernel_for(shape.slot_type),
         {blocks_for(batch), kWarps * kLanes}, stream, Cache{pool, stack, streams, batch}, layer,
         shape.head_dim, tokens, rope);
}

void collect_pages(const PageStack& stack, Stream stream) {
  launch("launching the return of pages", collect_kernel, {1, kCollectThreads}, stream, stack);
}

void release_rows(const PagePool& pool, const PageStack& stack, const Streams& streams,
                  const Batch& batch, int layers, Stream stream) {
  const dim3 grid(blocks_for(batch), static_cast<unsigned>(layers));
  launch("launching the release of sequences", release_kernel, {grid, kWarps * kLanes}, stream,
         Cache{pool, stack, streams, batch});
}

}  // namespace dmc::kernels::cuda

#include "kernels/cuda/attention/prompt_end.h"

#include "kernels/cuda/attention/slot_types.h"
#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kWeighThreads = 256, kChooseThreads = 1024;

struct EndArguments {
  CacheView cache;
  PromptEnd end;
};

__global__ void remember_kernel(const __grid_constant__ Streams streams,
                                const __grid_constant__ PromptChunk chunk, const float* q) {
  remember_queries<BlockTeam<kWeighThreads>>(streams, chunk, q, static_cast<int>(blockIdx.x));
}

template <DType kType>
__global__ void __launch_bounds__(kWeighThreads)
    weigh_kernel(const __grid_constant__ EndArguments args) {
  weigh_slots<kType, BlockTeam<kWeighThreads>>(args.cache.pool, args.cache.streams, args.end,
                                               static_cast<int>(blockIdx.x),
                                               static_cast<int>(blockIdx.y));
}

__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(const __grid_constant__ EndArguments args) {
  choose_slots<BlockTeam<kChooseThreads>>(args.cache.pool, args.cache.streams, args.end,
                                          static_cast<int>(blockIdx.x));
}

template <DType kType>
__global__ void keep_kernel(const __grid_constant__ EndArguments args) {
  keep_slots<kType, WarpTeam>(args.cache.pool, args.cache.stack, args.cache.streams, args.end,
                              static_cast<int>(blockIdx.x));
}

}  // namespace

void remember_queries(const Streams& streams, const PromptChunk& chunk, const float* q,
                      Stream stream) {
  if (chunk.tokens == 0) return;
  launch("launching the notes of a prompt's queries", remember_kernel,
         {static_cast<unsigned>(chunk.kv_heads), kWeighThreads}, stream, streams, chunk, q);
}

void keep_of_prompt(DType slot_type, const CacheView& cache, const PromptEnd& end, Stream stream) {
  const EndArguments args{cache, end};
  const auto heads = static_cast<unsigned>(end.kv_heads);
  const dim3 by_observer(heads, static_cast<unsigned>(cache.streams.observes));
  with_slot_type(slot_type, [&]<DType kType>() {
    launch("launching the look at a prompt's attention", weigh_kernel<kType>,
           {by_observer, kWeighThreads}, stream, args);
    launch("launching the choice of a prompt's slots", choose_kernel, {heads, kChooseThreads},
           stream, args);
    launch("launching the end of a prompt's slots", keep_kernel<kType>, {heads, kLanes}, stream,
           args);
  });
}

}  // namespace dmc::kernels::cuda

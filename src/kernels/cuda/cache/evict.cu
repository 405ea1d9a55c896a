// A block looks at a stream's attention, since a lane has whole slots of it; what follows is little
// work, and a warp does it.
#include "kernels/cuda/cache/evict.h"

#include "kernels/cuda/attention/slot_types.h"
#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kObserveThreads = 256;
constexpr int kWarps = 4;  // of a block that gives a warp to each stream

struct EvictArguments {
  CacheView cache;
  Batch batch;
  int layer, head_dim, group;
  EvictionStep step;

  __device__ StreamSlots slots(int item) const {
    return {cache.pool, cache.streams, batch.stream(layer, item), head_dim};
  }
};

template <DType kType>
__global__ void __launch_bounds__(kObserveThreads)
    observe_kernel(const __grid_constant__ EvictArguments args) {
  const int item = static_cast<int>(blockIdx.x);
  if (!args.batch.active(item)) return;
  const int64_t capacity = args.cache.streams.stats_capacity(args.cache.pool.page_slots);
  const int64_t at = int64_t{item} * args.group * args.head_dim;
  observe<kType, BlockTeam<kObserveThreads>>(args.slots(item),
                                             {args.step.q + at, args.group, args.step.scale},
                                             args.step.scores + item * capacity);
}

__global__ void __launch_bounds__(kObserveThreads)
    share_kernel(const __grid_constant__ EvictArguments args) {
  const int row = static_cast<int>(blockIdx.x);
  if (args.batch.rows[row] < 0) return;
  share_attention<BlockTeam<kObserveThreads>>(args.cache.streams, args.cache.pool.page_slots,
                                              args.batch, args.layer, row);
}

template <DType kType>
__global__ void evict_kernel(const __grid_constant__ EvictArguments args) {
  const int item = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kLanes);
  if (item >= args.batch.items() || !args.batch.active(item)) return;
  evict<kType, WarpTeam>(args.slots(item), args.cache.stack, args.step.spec,
                         args.step.positions[item / args.batch.kv_heads]);
}

template <DType kType>
void launch_eviction(const EvictArguments& args, Stream stream) {
  const int items = args.batch.items();
  if (policy::uses_attention(args.step.spec.rule)) {
    launch("launching the look at attention", observe_kernel<kType>,
           {static_cast<unsigned>(items), kObserveThreads}, stream, args);
  }
  if (args.step.spec.layer_wide) {
    launch("launching the mean of attention", share_kernel,
           {static_cast<unsigned>(args.batch.batch), kObserveThreads}, stream, args);
  }
  launch("launching eviction", evict_kernel<kType>,
         {static_cast<unsigned>((items + kWarps - 1) / kWarps), kWarps * kLanes}, stream, args);
}

}  // namespace

void evict_slots(const DecodeShape& shape, const CacheView& cache, const Batch& batch, int layer,
                 const EvictionStep& step, Stream stream) {
  const EvictArguments args{cache, batch, layer, shape.head_dim, shape.group, step};
  with_slot_type(shape.slot_type, [&]<DType kType>() { launch_eviction<kType>(args, stream); });
}

}  // namespace dmc::kernels::cuda

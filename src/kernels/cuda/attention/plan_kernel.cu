#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/lanes/scan.cuh"
#include "kernels/cuda/launch.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kThreads = 1024;

struct PlanArguments {
  Streams streams;
  Batch batch;
  DecodeWorkspace workspace;
};

__device__ int32_t item_cost(const PlanArguments& args, int layer, int item) {
  if (!args.batch.active(item)) return 0;
  return planned_tiles(args.streams.closed[args.batch.stream(layer, item)]) + kStreamCost;
}

// Block l plans layer l. Each thread has a run of streams, whose costs it reads twice: they are in
// the L1 cache then, and registers could not hold a number of them that is only known at run time.
__global__ void __launch_bounds__(kThreads)
    plan_kernel(const __grid_constant__ PlanArguments args) {
  const int layer = static_cast<int>(blockIdx.x), items = args.batch.items();
  const int run = (items + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * run, items);
  const int last = min(first + run, items);
  int32_t sum = 0, total = 0;
  for (int item = first; item < last; ++item) sum += item_cost(args, layer, item);
  int32_t start = sum_before<kThreads>(sum, &total);

  const PlanView plan = args.workspace.plan(layer);
  const int64_t workers = workers_used(total, plan.max_workers);
  for (int item = first; item < last; ++item) {
    const int32_t end = start + item_cost(args, layer, item);
    plan.starts[item] = start;
    if (total > 0) cut_item(item, start, end, workers, total, plan.cuts);
    start = end;
  }
  if (threadIdx.x == 0) {
    plan.starts[items] = total;
    if (total > 0) plan.cuts[workers] = {items, 0};
  }
}

}  // namespace

void plan_decode(const Streams& streams, const Batch& batch, const DecodeWorkspace& workspace,
                 Stream stream) {
  DMC_CHECK(batch.items() <= workspace.max_items);
  launch("launching the plan of a decode step", plan_kernel,
         {static_cast<unsigned>(workspace.layers), kThreads}, stream,
         PlanArguments{streams, batch, workspace});
}

}  // namespace dmc::kernels::cuda

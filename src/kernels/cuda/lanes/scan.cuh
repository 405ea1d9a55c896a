// A prefix sum over the threads of a block.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/lanes/warp.cuh"

namespace dmc::kernels::cuda {

// The sum of x over all threads before this one; *total: over all. For all kThreads of a block,
// once a kernel for each kUse.
template <int kThreads, int kUse = 0>
__device__ int32_t sum_before(int32_t x, int32_t* total) {
  constexpr int kWarps = kThreads / kLanes;
  __shared__ int32_t warp_sums[kWarps];
  const int lane = WarpTeam::lane(), warp = static_cast<int>(threadIdx.x) / kLanes;
  int32_t sum = x;
  for (int apart = 1; apart < kLanes; apart *= 2) {
    const int32_t other = __shfl_up_sync(0xffffffffu, sum, apart);
    if (lane >= apart) sum += other;
  }
  if (lane == kLanes - 1) warp_sums[warp] = sum;
  __syncthreads();
  int32_t before = sum - x;
  *total = 0;
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) before += warp_sums[i];
    *total += warp_sums[i];
  }
  return before;
}

}  // namespace dmc::kernels::cuda

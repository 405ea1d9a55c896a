// A block as a team (team.h): for rows that are long where there are few of them.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/lanes/scan.cuh"
#include "kernels/cuda/lanes/warp.cuh"

namespace dmc::kernels::cuda {

template <int kThreads>
struct BlockTeam {
  DMC_DEVICE static int lane() { return static_cast<int>(threadIdx.x); }
  DMC_DEVICE static int size() { return kThreads; }
  template <class T>
  __device__ static T sum(T x) {
    return over_warps(WarpTeam::sum(x), [](T a, T b) { return a + b; });
  }
  __device__ static int32_t sum_before(int32_t x, int32_t* total) {
    __syncthreads();  // the sums of the call before have been read
    return cuda::sum_before<kThreads>(x, total);
  }
  __device__ static float max(float x) {
    return over_warps(WarpTeam::max(x), [](float a, float b) { return fmaxf(a, b); });
  }
  __device__ static void sync() { __syncthreads(); }
  DMC_DEVICE static float from_f16(uint16_t bits) { return WarpTeam::from_f16(bits); }
  __device__ static uint32_t add(uint32_t* counter, uint32_t by) { return atomicAdd(counter, by); }

 private:
  // Combines what each warp has; all threads get the result.
  template <class T, class Op>
  __device__ static T over_warps(T x, Op&& op) {
    constexpr int kWarps = kThreads / kLanes;
    __shared__ T of_warps[kWarps];
    __syncthreads();  // those of the call before have been read
    if (WarpTeam::lane() == 0) of_warps[threadIdx.x / kLanes] = x;
    __syncthreads();
    T result = of_warps[0];
    for (int i = 1; i < kWarps; ++i) result = op(result, of_warps[i]);
    return result;
  }
};

}  // namespace dmc::kernels::cuda

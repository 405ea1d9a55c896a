// In the place of NVIDIA's header where kernels are compiled by g++ to run on the CPU: as much of
// CUDA as they and CudaDevice use. Launches and asynchronous copies wait in their stream until
// somebody waits for them, so whoever reads too early sees what was there before.
#pragma once

#include <math.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "block.h"

#define __host__
#define __device__
#define __global__
#define __shared__ static  // one block runs at a time
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// --- What threads can do ---

namespace emulated {

// A number that is another one in each thread.
template <unsigned (*get)()>
struct OfThread {
  operator unsigned() const { return get(); }
};

}  // namespace emulated

inline constexpr struct {
  emulated::OfThread<[] { return emulated::thread_index().x; }> x;
} threadIdx;
inline constexpr struct {
  emulated::OfThread<[] { return emulated::block_index().x; }> x;
  emulated::OfThread<[] { return emulated::block_index().y; }> y;
} blockIdx;
inline constexpr struct {
  emulated::OfThread<[] { return emulated::grid_size().x; }> x;
} gridDim;

#define DMC_EMULATED_TEXT_OF(x) #x
#define DMC_EMULATED_TEXT(x) DMC_EMULATED_TEXT_OF(x)
#define __syncthreads() emulated::sync_block(__FILE__ ":" DMC_EMULATED_TEXT(__LINE__))
inline void __syncwarp() {
  emulated::meet("__syncwarp", nullptr, [](const auto&) {});
}
inline void __threadfence() {}

namespace emulated {

// What the lane `from` brought.
template <class T>
T shuffle(const char* where, T x, int from) {
  struct Lane {
    T x, result;
    int from;
  } mine{x, x, from};
  meet_with(where, mine, [](const auto& lanes) {
    for (Lane* lane : lanes) lane->result = lanes[static_cast<size_t>(lane->from)]->x;
  });
  return mine.result;
}

}  // namespace emulated

template <class T>
T __shfl_sync(unsigned, T x, int from) {
  return emulated::shuffle("__shfl_sync", x, from);
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int apart) {
  return emulated::shuffle("__shfl_xor_sync", x, emulated::lane() ^ apart);
}
template <class T>
T __shfl_up_sync(unsigned, T x, int apart) {
  const int from = emulated::lane() - apart;
  return emulated::shuffle("__shfl_up_sync", x, from < 0 ? emulated::lane() : from);
}

template <class T>
T atomicAdd(T* to, T by) {
  emulated::yield();  // others may come first
  const T before = *to;
  *to += by;
  return before;
}

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

// --- What the host can do ---

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamNonBlocking = 1;
using cudaStream_t = struct CUstream_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
using cudaEvent_t = struct CUevent_st*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemGetInfo(size_t* left, size_t* all);

// Every byte starts as 0xff; no page lies behind the last one.
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFreeHost(void* memory);
template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, uint64_t flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);

cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
// By the host's clock.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

namespace emulated {

void allow_shared_memory(const void* kernel, size_t bytes);
// Refuses what no GPU since sm_80 would run.
cudaError_t enqueue_kernel(const void* kernel, const cudaLaunchConfig_t& config,
                           size_t parameter_bytes, std::function<void()> thread);

}  // namespace emulated

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Parameters... arguments) {
  return emulated::enqueue_kernel(reinterpret_cast<const void*>(kernel), *config,
                                  (sizeof(Parameters) + ... + 0), [=] { kernel(arguments...); });
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int value) {
  emulated::allow_shared_memory(reinterpret_cast<const void*>(kernel), static_cast<size_t>(value));
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}

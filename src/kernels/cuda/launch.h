// What all launches share. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "base/error.h"

namespace dmc::kernels::cuda {

// Error(kInternal) saying what failed while `doing`.
inline void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  throw internal_error(std::string("CUDA: ") + doing + " failed: " + cudaGetErrorString(status));
}

// How a kernel is laid out over the device.
struct Grid {
  dim3 blocks;
  int threads;              // of a block
  size_t shared_bytes = 0;  // of a block, beside what the kernel declares
};

// Error(kInternal) if the launch `doing` what it says cannot be.
template <class... Parameters, class... Arguments>
void launch(const char* doing, void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), doing);
}

// Blocks of a kernel that the current device runs at once.
template <class Kernel>
int blocks_on_device(Kernel* kernel, int threads, size_t shared_bytes) {
  int device = 0, processors = 0, blocks = 0;
  check(cudaGetDevice(&device), "finding the device");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "counting multiprocessors");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes),
        "finding the blocks of a multiprocessor");
  if (blocks == 0) throw internal_error("CUDA: this device has too little shared memory");
  return blocks * processors;
}

}  // namespace dmc::kernels::cuda

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

// Launches of training's pooling. Where the program is built without CUDA, they are linked from
// src/kernels/no_cuda, which does the same work in memory of the CPU, on one lane: for tests of
// what calls them.
#pragma once

#include "kernels/cuda/rows/pool_scan.h"
#include "kernels/cuda/rows/pool_training.h"

struct __nv_bfloat16;
struct CUstream_st;  // cudaStream_t, so that this header needs no CUDA

namespace dmc::kernels::cuda {

bool has_pooling();  // on a GPU

// kernels/pooling.h on the device; T is float or __nv_bfloat16. With window 0, heads have at most
// kMostPooledDim numbers.
template <class T>
void pool_forward(const PoolTensors<T>& tensors, CUstream_st* stream);
template <class T>
void pool_backward(const PoolTensors<T>& tensors, CUstream_st* stream);

}  // namespace dmc::kernels::cuda

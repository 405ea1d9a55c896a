// What lets one source serve nvcc and g++: index arithmetic and the algorithms of the CUDA kernels
// are plain C++ over a policy class (a warp, a team of lanes), so that unit tests run them on the
// CPU with an emulated one.
#pragma once

#include "base/host_device.h"

#ifdef __CUDACC__
#define DMC_DEVICE __device__ __forceinline__
#define DMC_UNROLL _Pragma("unroll")  // so that arrays stay in registers
#else
#define DMC_DEVICE inline
#define DMC_UNROLL
#endif

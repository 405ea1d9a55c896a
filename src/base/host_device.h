// For functions that CUDA kernels call, too.
#pragma once

#ifdef __CUDACC__
#define DMC_HOST_DEVICE __host__ __device__ inline
#else
#define DMC_HOST_DEVICE inline
#endif

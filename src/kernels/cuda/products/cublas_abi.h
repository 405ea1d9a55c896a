// What we need of cuBLAS's C interface, declared here because nothing of it is there when the
// program is built. cublas_check.cu holds it against NVIDIA's own header where that is installed.
#pragma once

namespace dmc::kernels::cuda {

namespace cublas_abi {

constexpr int kAsIs = 0, kTransposed = 1;                  // cublasOperation_t
constexpr int kRealF32 = 0, kRealF16 = 2, kRealBF16 = 14;  // cudaDataType
constexpr int kComputeF32 = 68;                            // cublasComputeType_t
constexpr int kDefaultAlgorithm = -1;                      // cublasGemmAlgo_t

}  // namespace cublas_abi

// cublasStatus_t is 0 on success. Handle; operations on A and B; m, n, k; alpha; A, its type and
// leading dimension; B likewise; beta; C likewise; what sums are kept in; the algorithm.
using CublasGemmEx = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int,
                             const void*, int, int, const void*, void*, int, int, int, int);

}  // namespace dmc::kernels::cuda

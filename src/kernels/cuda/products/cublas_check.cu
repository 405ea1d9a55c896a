// Holds cublas_abi.h against NVIDIA's header, where a toolkit has it. Makes no code.
#include "kernels/cuda/products/cublas_abi.h"

#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>

#include <type_traits>
#include <utility>

namespace dmc::kernels::cuda {

static_assert(cublas_abi::kTransposed == CUBLAS_OP_T && cublas_abi::kAsIs == CUBLAS_OP_N);
static_assert(cublas_abi::kRealF32 == CUDA_R_32F && cublas_abi::kRealF16 == CUDA_R_16F);
static_assert(cublas_abi::kRealBF16 == CUDA_R_16BF);
static_assert(cublas_abi::kComputeF32 == CUBLAS_COMPUTE_32F);
static_assert(cublas_abi::kDefaultAlgorithm == CUBLAS_GEMM_DEFAULT && CUBLAS_STATUS_SUCCESS == 0);
// Handles are pointers, enumerations are passed as int.
static_assert(sizeof(cublasHandle_t) == sizeof(void*) && sizeof(cublasStatus_t) == sizeof(int));
static_assert(sizeof(cublasOperation_t) == sizeof(int) && sizeof(cudaDataType) == sizeof(int));
static_assert(sizeof(cublasComputeType_t) == sizeof(int));
static_assert(sizeof(cublasGemmAlgo_t) == sizeof(int));
// A call with its arguments in our order (the function has overloads, so it has no one type).
using std::declval;
using Status = decltype(cublasGemmEx(declval<cublasHandle_t>(), CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, 1,
                                     declval<const void*>(), declval<const void*>(), CUDA_R_16BF, 1,
                                     declval<const void*>(), CUDA_R_16BF, 1, declval<const void*>(),
                                     declval<void*>(), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F,
                                     CUBLAS_GEMM_DEFAULT));
static_assert(std::is_same_v<Status, cublasStatus_t>);

}  // namespace dmc::kernels::cuda
#endif

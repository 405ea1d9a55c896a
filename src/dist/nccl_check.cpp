// Holds nccl_abi.h against NVIDIA's header, where that and a CUDA toolkit are on the compiler's
// path. Makes no code.
#include "dist/nccl_abi.h"

#if __has_include(<nccl.h>) && __has_include(<cuda_runtime.h>)
#include <nccl.h>

#include <type_traits>

namespace dmc::dist::nccl_abi {

static_assert(kSuccess == ncclSuccess && kInProgress == ncclInProgress && kSum == ncclSum);
static_assert(kInt64 == ncclInt64 && kFloat32 == ncclFloat32 && kFloat64 == ncclFloat64);
static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId) && alignof(UniqueId) == 1);
static_assert(std::is_trivially_copyable_v<ncclUniqueId> && alignof(ncclUniqueId) == 1);
static_assert(sizeof(ncclComm_t) == sizeof(void*) && sizeof(cudaStream_t) == sizeof(void*));
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int));
static_assert(sizeof(ncclRedOp_t) == sizeof(int));
static_assert(std::is_same_v<decltype(&ncclCommInitRank),
                             ncclResult_t (*)(ncclComm_t*, int, ncclUniqueId, int)>);
static_assert(std::is_same_v<decltype(&ncclAllReduce),
                             ncclResult_t (*)(const void*, void*, size_t, ncclDataType_t,
                                              ncclRedOp_t, ncclComm_t, cudaStream_t)>);
static_assert(std::is_same_v<decltype(&ncclReduce),
                             ncclResult_t (*)(const void*, void*, size_t, ncclDataType_t,
                                              ncclRedOp_t, int, ncclComm_t, cudaStream_t)>);
static_assert(std::is_same_v<decltype(&ncclBroadcast),
                             ncclResult_t (*)(const void*, void*, size_t, ncclDataType_t, int,
                                              ncclComm_t, cudaStream_t)>);
static_assert(
    std::is_same_v<decltype(&ncclCommGetAsyncError), ncclResult_t (*)(ncclComm_t, ncclResult_t*)>);

}  // namespace dmc::dist::nccl_abi
#endif

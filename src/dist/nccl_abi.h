// What we need of NCCL's C interface, declared here because nothing of it is there when the program
// is built: it comes with PyTorch for CUDA. nccl_check.cpp holds it against NVIDIA's own header
// where that is installed.
#pragma once

#include <array>
#include <cstddef>

namespace dmc::dist::nccl_abi {

struct UniqueId {  // ncclUniqueId, passed by value
  std::array<char, 128> bytes;
};

// ncclResult_t is 0 on success; ncclInProgress is for communicators that do not block.
constexpr int kSuccess = 0, kInProgress = 7;
constexpr int kInt64 = 4, kFloat32 = 7, kFloat64 = 8;  // ncclDataType_t
constexpr int kSum = 0;                                // ncclRedOp_t

// Communicators and streams are pointers, enumerations are passed as int.
using GetUniqueId = int (*)(UniqueId*);
using CommInitRank = int (*)(void** comm, int size, UniqueId, int rank);
using CommDestroy = int (*)(void* comm);
using CommAbort = int (*)(void* comm);
using CommGetAsyncError = int (*)(void* comm, int* error);
using GetErrorString = const char* (*)(int result);
// from, to, elements, type, operation, (rank,) communicator, stream
using AllReduce = int (*)(const void*, void*, size_t, int, int, void*, void*);
using Reduce = int (*)(const void*, void*, size_t, int, int, int, void*, void*);
// from, to, elements, type, rank, communicator, stream
using Broadcast = int (*)(const void*, void*, size_t, int, int, void*, void*);

}  // namespace dmc::dist::nccl_abi

// NCCL's functions, found when first asked for.
#pragma once

#include "dist/nccl_abi.h"

namespace dmc::dist {

struct NcclLibrary {
  nccl_abi::GetUniqueId get_unique_id;
  nccl_abi::CommInitRank init_rank;
  nccl_abi::CommDestroy destroy;
  nccl_abi::CommAbort abort;
  nccl_abi::CommGetAsyncError get_async_error;
  nccl_abi::GetErrorString error_string;
  nccl_abi::AllReduce all_reduce;
  nccl_abi::Reduce reduce;
  nccl_abi::Broadcast broadcast;
};

// Error(kInvalidArgument) naming --device if there is none.
const NcclLibrary& nccl();

}  // namespace dmc::dist

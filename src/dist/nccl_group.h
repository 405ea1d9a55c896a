// Ranks with a GPU each, through NVIDIA's NCCL, which is looked for when the program runs: PyTorch
// for CUDA brings it, and nobody needs it to build. (So there is no other file for programs without
// CUDA.)
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "dist/group.h"
#include "dist/heartbeat.h"

namespace dmc::dist {

// A collective of place.size processes that share `store`, for tensors on `device`, whose exchanges
// run on LibTorch's default stream. Error(kInvalidArgument) naming --device if NCCL is not found;
// PeerLost, thrown by settle() too, which is where a rank that is gone is noticed.
std::unique_ptr<Group> nccl_group(const Store& store, const Place& place, const at::Device& device,
                                  const Timing& timing = {});

}  // namespace dmc::dist

// Ranks that are processes, on one machine or several, with tensors on the CPU.
#pragma once

#include <memory>

#include "dist/group.h"
#include "dist/heartbeat.h"

namespace dmc::dist {

// A collective of place.size processes that share `store`. Throws PeerLost.
std::unique_ptr<Group> gloo_group(const Store& store, const Place& place,
                                  const Timing& timing = {});

}  // namespace dmc::dist

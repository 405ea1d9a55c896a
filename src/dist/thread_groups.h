// Ranks that are threads of one process, for tests: what training computes does not depend on how
// its ranks talk.
#pragma once

#include <functional>

#include "dist/group.h"

namespace dmc::dist {

// Calls `work` on `size` threads, each with its rank's group, and returns when all have ended. The
// first exception that is not PeerLost is rethrown; the other ranks get PeerLost.
void run_as_threads(int size, const std::function<void(Group&)>& work);

}  // namespace dmc::dist

// The store through which the processes of a run find one another, and learn who is gone.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <functional>

#include "dist/place.h"

namespace dmc::dist {

using Store = c10::intrusive_ptr<c10d::Store>;

// For processes to come up. A cluster may start them minutes apart.
inline constexpr std::chrono::milliseconds kPatience = std::chrono::minutes(5);

// Serves the store or connects to it, as `place` says. A port of 0 is replaced by a free one.
// Error(kInvalidArgument) naming MASTER_ADDR or MASTER_PORT if that does not succeed in time.
Store open_store(Place& place, std::chrono::milliseconds patience = kPatience);

// Returns when all processes of the run have called it. `meanwhile` is called now and then, and may
// throw. Error(kInvalidArgument) if not all come in time.
void wait_for_all(c10d::Store& store, const Place& place, const std::function<void()>& meanwhile,
                  std::chrono::milliseconds patience = kPatience);

}  // namespace dmc::dist

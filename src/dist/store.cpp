#include "dist/store.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <thread>

#include "base/error.h"
#include "base/stopwatch.h"

namespace dmc::dist {
namespace {

std::string address(const Place& place) { return place.host + ":" + std::to_string(place.port); }

// LibTorch would print a stack trace of what ends as one sentence of ours.
void quieten_libtorch() {
  constexpr int kFatalAlone = 3;
  FLAGS_caffe2_log_level = kFatalAlone;
}

Error no_store(const Place& place) {
  if (place.serves_store) {
    return invalid_argument(
        "MASTER_PORT: cannot listen on port " + std::to_string(place.port) +
        ", another program may do so; name a free one, the same for all processes");
  }
  return invalid_argument(
      "MASTER_ADDR, MASTER_PORT: no process of the run answers at " + address(place) +
      "; start the one of RANK 0 on that machine, and let no firewall stand between");
}

}  // namespace

Store open_store(Place& place, std::chrono::milliseconds patience) {
  quieten_libtorch();
  c10d::TCPStoreOptions options;
  options.port = place.port;
  options.isServer = place.serves_store;
  options.waitWorkers = false;  // wait_for_all does, and looks after them
  options.timeout = patience;
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(place.host, options);
    place.port = store->getPort();
    return c10::make_intrusive<c10d::PrefixStore>("dmc/" + place.attempt, store);
  } catch (const std::exception&) {  // LibTorch's, of several types
    throw no_store(place);
  }
}

void wait_for_all(c10d::Store& store, const Place& place, const std::function<void()>& meanwhile,
                  std::chrono::milliseconds patience) {
  const Stopwatch watch;
  int64_t here = store.add("here", 1);
  for (; here < place.size; here = store.add("here", 0)) {
    if (meanwhile) meanwhile();
    if (watch.seconds() > std::chrono::duration<double>(patience).count()) {
      throw invalid_argument("WORLD_SIZE: only " + std::to_string(here) + " of " +
                             std::to_string(place.size) + " processes came to " + address(place) +
                             " in time; see what the others said");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace dmc::dist

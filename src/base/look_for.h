// Waiting for another thread that answers within microseconds.
#pragma once

#include <chrono>
#include <thread>

namespace dmc {

// Looks for `ready` for a moment before the caller goes to sleep: between two operators of a decode
// step a thread waits for microseconds, and waking it would take longer. Short, because the core
// may be wanted by another process.
template <class Ready>
void look_for(Ready&& ready) {
  constexpr auto kMoment = std::chrono::microseconds(50);
  const auto start = std::chrono::steady_clock::now();
  while (!ready() && std::chrono::steady_clock::now() - start < kMoment) std::this_thread::yield();
}

}  // namespace dmc

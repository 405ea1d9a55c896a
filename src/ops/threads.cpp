#include "ops/threads.h"

#include <ATen/Parallel.h>

#include <thread>

#include "base/parallel.h"

namespace dmc::ops {

void set_threads(int count) {
  const int cores = count > 0 ? count : static_cast<int>(std::thread::hardware_concurrency());
  at::set_num_threads(cores);
  // LibTorch's threads spin for a while after each operator. Kernels that ran on threads of their
  // own would share the cores with that spinning.
  use_thread_team(
      [cores](const std::function<void()>& work) {
        at::parallel_for(0, cores, 1, [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i) work();
        });
      },
      cores);
}

}  // namespace dmc::ops

// One persistent pool of threads for kernels. Idle threads sleep, so they do not fight with
// LibTorch's own pool.
#pragma once

#include <cstdint>
#include <functional>

namespace dmc {

// Threads that work, the caller included; default: the machine's. Not while work is running.
void set_num_threads(int count);
int num_threads();

// Calls fn(first, last) for consecutive ranges of at most `grain` that cover [begin, end). Ranges
// are taken by whichever thread is free, so fn must not depend on which. Nested calls run inline.
// The first exception thrown is rethrown here after all ranges have ended.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& fn);

}  // namespace dmc

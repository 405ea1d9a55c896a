// The threads that kernels run on: a persistent pool of our own whose idle threads sleep, or a team
// that another library lends.
#pragma once

#include <cstdint>
#include <functional>

namespace dmc {

// Threads that work, the caller included; default: the machine's. Waits for work that is running.
void set_num_threads(int count);
int num_threads();

// A team calls `work` on each of its threads and returns when all calls have. From then on
// parallel_for runs on it, and our own pool is not started: two pools on the same cores would spin
// and wait for one another. `size` is the number of its threads. An empty team: our pool again.
using ThreadTeam = std::function<void(const std::function<void()>& work)>;
void use_thread_team(ThreadTeam team, int size);

// Calls fn(first, last) for consecutive ranges of at most `grain` that cover [begin, end). Ranges
// are taken by whichever thread is free, so fn must not depend on which. Nested calls run inline.
// The first exception thrown is rethrown here after all ranges have ended.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& fn);

}  // namespace dmc

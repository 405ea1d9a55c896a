// One block of a kernel on the CPU: its threads as fibers that are switched where CUDA's threads
// meet, in a random order. What threads do wrong with one another then shows: a barrier that is
// missing, one that not all of them reach, shared memory that is read before a copy into it was
// waited for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulated {

constexpr int kWarpLanes = 32;

struct Index {
  unsigned x, y, z;
};

// Of the thread that runs now.
Index thread_index();
Index block_index();
Index grid_size();
int lane();
std::byte* shared_memory();  // what the launch asked for

struct Launch {
  Index blocks;
  int threads;
  size_t shared_bytes;
};
// Runs a kernel from its first block to its last, in an order drawn from the environment variable
// DMC_EMULATOR_SEED (1) and the number of the launch. std::logic_error if its threads wait for one
// another in vain.
void run_kernel(const Launch& launch, const std::function<void()>& thread);

// Waits for all threads of the block that have not ended. `where`: they must all be in one place.
void sync_block(const char* where);
// Another thread may run now.
void yield();

// An asynchronous copy into shared memory (from: null for zeros). Until it is waited for, the
// memory holds NaNs or already the copy, by chance.
void start_copy(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_copies(int pending);

using AllLanes = std::array<void*, kWarpLanes>;
// All lanes of a warp come here; the last one runs `work` on what each of them brought.
void meet(const char* where, void* mine, const std::function<void(const AllLanes&)>& work);

template <class T, class Fn>
void meet_with(const char* where, T& mine, Fn&& fn) {
  meet(where, &mine, [&](const AllLanes& all) {
    std::array<T*, kWarpLanes> lanes;
    for (int i = 0; i < kWarpLanes; ++i)
      lanes[static_cast<size_t>(i)] = static_cast<T*>(all[static_cast<size_t>(i)]);
    fn(lanes);
  });
}

}  // namespace emulated

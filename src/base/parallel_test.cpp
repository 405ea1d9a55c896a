#include "base/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/serial_scope.h"

namespace dmc {
namespace {

// Every test runs with several pool sizes, whatever the machine has.
class Parallel : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_threads(GetParam()); }
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = num_threads();
};

TEST_P(Parallel, CoversTheRangeOnceInPiecesOfTheGrain) {
  EXPECT_EQ(num_threads(), GetParam());
  for (int64_t size : {0, 1, 7, 1000}) {
    for (int64_t grain : {1, 3, 2000}) {
      std::vector<int> seen(static_cast<size_t>(size), 0);
      parallel_for(5, 5 + size, grain, [&](int64_t first, int64_t last) {
        EXPECT_LE(last - first, grain);
        for (int64_t i = first; i < last; ++i) ++seen[static_cast<size_t>(i - 5)];
      });
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), size);
    }
  }
}

TEST_P(Parallel, NestedCallsRunInline) {
  std::atomic<int64_t> sum = 0;
  parallel_for(0, 20, 1, [&](int64_t outer, int64_t) {
    parallel_for(0, 20, 1, [&](int64_t inner, int64_t) { sum += outer * inner; });
  });
  EXPECT_EQ(sum, 190 * 190);
}

TEST_P(Parallel, RunsOnTheCallersThreadAloneWithinASerialScope) {
  {
    const SerialScope serial;
    const SerialScope within;
    std::vector<int64_t> order;
    parallel_for(0, 50, 3, [&](int64_t first, int64_t) { order.push_back(first); });
    EXPECT_EQ(order.size(), 17u);
    EXPECT_TRUE(std::ranges::is_sorted(order));
  }
  EXPECT_NO_THROW(set_num_threads(GetParam())) << "nothing of it stays behind";
}

TEST_P(Parallel, AnExceptionReachesTheCallerAndThePoolWorksOn) {
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(parallel_for(0, 50, 1,
                              [](int64_t first, int64_t) {
                                if (first % 10 == 3) throw std::runtime_error("thrown");
                              }),
                 std::runtime_error);
    std::atomic<int> calls = 0;
    parallel_for(0, 50, 1, [&](int64_t, int64_t) { ++calls; });
    EXPECT_EQ(calls, 50);
  }
}

// Callers of several threads at once, while others change how many threads there are.
TEST_P(Parallel, CallersAndChangesOfSizeDoNotDisturbOneAnother) {
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  const auto call = [&] {
    for (int round = 0; round < 300; ++round) {
      std::atomic<int64_t> sum = 0;
      parallel_for(0, 40, 3, [&](int64_t first, int64_t last) { sum += last - first; });
      wrong += sum != 40;
    }
  };
  std::thread resizer([&] {
    for (int count = 1; !stop; count = count % 4 + 1) {
      set_num_threads(count);
      wrong += num_threads() < 1 || num_threads() > 4;
    }
  });
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(call);
  for (std::thread& caller : callers) caller.join();
  stop = true;
  resizer.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(Parallel, WorkCannotChangeTheNumberOfItsThreads) {
  if (GetParam() == 1) GTEST_SKIP() << "there are none that could wait for it";
  EXPECT_THROW(parallel_for(0, 8, 1, [](int64_t, int64_t) { set_num_threads(2); }), Error);
}

// Short jobs in a row: a thread that wakes late must not touch a job that has ended.
TEST_P(Parallel, ManyShortJobs) {
  int64_t total = 0;
  for (int job = 0; job < 5000; ++job) {
    std::atomic<int64_t> sum = 0;
    parallel_for(0, 4, 1, [&](int64_t first, int64_t) { sum += first; });
    total += sum;
  }
  EXPECT_EQ(total, 5000 * 6);
}

INSTANTIATE_TEST_SUITE_P(Threads, Parallel, testing::Values(1, 2, 5));

// Two threads, two ranges, one each: whoever calls must wait for the range that the other took.
TEST(ParallelCaller, WaitsForTheOthers) {
  const int before = num_threads();
  set_num_threads(2);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> other_started = false, caller_finished = false, other_finished = false;
  parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    if (std::this_thread::get_id() == caller) {
      while (!other_started) std::this_thread::yield();
      caller_finished = true;
    } else {
      other_started = true;
      while (!caller_finished) std::this_thread::yield();
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // time to return too early
      other_finished = true;
    }
  });
  EXPECT_TRUE(other_finished);
  set_num_threads(before);
}

TEST(ThreadTeam, ALentTeamDoesTheWork) {
  std::atomic<int> calls = 0;
  use_thread_team(
      [&](const std::function<void()>& work) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 3; ++i) {
          threads.emplace_back([&] {
            ++calls;
            work();
          });
        }
        for (std::thread& thread : threads) thread.join();
      },
      3);
  EXPECT_EQ(num_threads(), 3);
  std::vector<int> seen(100, 0);
  parallel_for(0, 100, 7, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) ++seen[static_cast<size_t>(i)];
  });
  use_thread_team({}, 0);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 100);
}

}  // namespace
}  // namespace dmc

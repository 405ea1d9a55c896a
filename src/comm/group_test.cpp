// Collectives over threads: against sums written out, in any order of arrival, and what a rank that
// fails does to the others.
#include "comm/group.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "base/parallel.h"
#include "base/rng.h"
#include "comm/rank_threads.h"

namespace dmc::comm {
namespace {

constexpr std::array<int64_t, 6> kCounts = {0, 1, 7, 256, 1000, 5003};

class Ranks : public testing::TestWithParam<int> {
 protected:
  int size() const { return GetParam(); }

  RankThreads ranks_{thread_groups(GetParam())};
};

std::vector<float> numbers_of(int rank, int64_t count) {
  Rng rng(static_cast<uint64_t>(1000 + rank));
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& x : numbers) x = static_cast<float>(rng.uniform() - 0.5) * 1e3f;
  return numbers;
}

// By the rule: f32, rank by rank.
std::vector<float> sum_of_ranks(int ranks, int64_t count) {
  std::vector<float> sum = numbers_of(0, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<float> next = numbers_of(rank, count);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += next[i];
  }
  return sum;
}

// So that ranks do not come in their order.
void stagger(int rank, int round) {
  if ((rank + round) % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

TEST_P(Ranks, AllReduceGivesEachTheSumInTheOrderOfRanksWhoeverComesFirst) {
  for (const int64_t count : kCounts) {
    const std::vector<float> wanted = sum_of_ranks(size(), count);
    for (int round = 0; round < 5; ++round) {
      std::vector<std::vector<float>> data;
      for (int rank = 0; rank < size(); ++rank) data.push_back(numbers_of(rank, count));
      ranks_.run([&](int rank) {
        stagger(rank, round);
        auto& mine = data[static_cast<size_t>(rank)];
        ranks_.group(rank).all_reduce(mine.data(), count, DType::kF32, nullptr);
      });
      for (const auto& mine : data) ASSERT_EQ(mine, wanted) << count << " numbers";
    }
  }
}

TEST_P(Ranks, HalvesAreSummedInF32AndRoundedOnce) {
  constexpr int64_t kCount = 700;
  struct Half {
    DType type;
    uint16_t (*narrow)(float);
    float (*widen)(uint16_t);
  };
  for (const auto& [type, narrow, widen] :
       {Half{DType::kBF16, f32_to_bf16, bf16_to_f32}, Half{DType::kF16, f32_to_f16, f16_to_f32}}) {
    std::vector<std::vector<uint16_t>> data(static_cast<size_t>(size()));
    std::vector<float> sum(kCount, 0.0f);
    for (int rank = 0; rank < size(); ++rank) {
      const std::vector<float> numbers = numbers_of(rank, kCount);
      for (size_t i = 0; i < numbers.size(); ++i) {
        data[static_cast<size_t>(rank)].push_back(narrow(numbers[i]));
        sum[i] += widen(data[static_cast<size_t>(rank)].back());
      }
    }
    ranks_.run([&, type = type](int rank) {
      ranks_.group(rank).all_reduce(data[static_cast<size_t>(rank)].data(), kCount, type, nullptr);
    });
    for (const auto& mine : data) {
      for (size_t i = 0; i < mine.size(); ++i) ASSERT_EQ(mine[i], narrow(sum[i]));
    }
  }
}

TEST_P(Ranks, AllGatherAndReduceScatterAndBroadcast) {
  for (const int64_t count : kCounts) {
    std::vector<float> gathered;
    for (int rank = 0; rank < size(); ++rank) {
      const std::vector<float> mine = numbers_of(rank, count);
      gathered.insert(gathered.end(), mine.begin(), mine.end());
    }
    const std::vector<float> sums = sum_of_ranks(size(), size() * count);
    ranks_.run([&](int rank) {
      Group& group = ranks_.group(rank);
      EXPECT_EQ(group.rank(), rank);
      EXPECT_EQ(group.size(), size());
      std::vector<float> mine = numbers_of(rank, count), all(gathered.size());
      group.all_gather(mine.data(), count, DType::kF32, all.data(), nullptr);
      EXPECT_EQ(all, gathered);
      const std::vector<float> rows = numbers_of(rank, size() * count);
      group.reduce_scatter(rows.data(), count, DType::kF32, mine.data(), nullptr);
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), sums.begin() + rank * count));
      const int root = size() - 1;
      mine = numbers_of(rank, count);
      group.broadcast(mine.data(), count, DType::kF32, root, nullptr);
      EXPECT_EQ(mine, numbers_of(root, count));
    });
  }
}

TEST_P(Ranks, WholeNumbersAreGathered) {
  ranks_.run([&](int rank) {
    const int64_t mine = (int64_t{1} << 40) + rank;
    std::vector<int64_t> all(static_cast<size_t>(size()));
    ranks_.group(rank).all_gather(&mine, 1, DType::kI64, all.data(), nullptr);
    for (int64_t i = 0; i < size(); ++i) {
      EXPECT_EQ(all[static_cast<size_t>(i)], (int64_t{1} << 40) + i);
    }
  });
}

TEST_P(Ranks, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int> here = 0;
  for (int round = 1; round <= 20; ++round) {
    ranks_.run([&](int rank) {
      stagger(rank, round);
      ++here;
      ranks_.group(rank).barrier(nullptr);
      EXPECT_EQ(here, round * size());
    });
  }
}

// Whichever rank fails, before, between and after collectives: the caller gets its exception, the
// others are released, and the next run works.
TEST_P(Ranks, ARankThatFailsReleasesTheOthersAndTheNextRunWorks) {
  for (int failing = 0; failing < size(); ++failing) {
    for (int after = 0; after < 4; ++after) {
      std::atomic<int> released = 0;
      const auto work = [&](int rank) {
        float x = 1.0f;
        for (int call = 0; call < 4; ++call) {
          if (rank == failing && call == after) throw std::runtime_error("out of luck");
          try {
            ranks_.group(rank).all_reduce(&x, 1, DType::kF32, nullptr);
          } catch (const RankLost& error) {
            EXPECT_EQ(error.code(), ErrorCode::kCancelled);
            ++released;
            throw;
          }
        }
      };
      try {
        ranks_.run(work);
        FAIL() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "out of luck");
      }
      EXPECT_EQ(released, size() - 1);
      ranks_.run([&](int rank) {
        float x = 1.0f;
        ranks_.group(rank).all_reduce(&x, 1, DType::kF32, nullptr);
        EXPECT_EQ(x, static_cast<float>(size()));
      });
    }
  }
}

TEST_P(Ranks, AbortFromAnotherThreadReleasesAll) {
  if (size() == 1) return;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ranks_.group(0).abort();
  });
  EXPECT_THROW(ranks_.run([&](int rank) {
    if (rank > 0) ranks_.group(rank).barrier(nullptr);
    if (rank == 0) canceller.join();
  }),
               RankLost);
  EXPECT_NO_THROW(ranks_.run([&](int rank) { ranks_.group(rank).barrier(nullptr); }));
}

TEST_P(Ranks, WhatIsNotTheSameCollectiveIsAnErrorOnAll) {
  if (size() == 1) return;
  std::atomic<int> errors = 0;
  const auto run = [&](const std::function<void(int)>& work) {
    errors = 0;
    EXPECT_THROW(ranks_.run([&](int rank) {
      try {
        work(rank);
      } catch (const Error& error) {
        errors += error.code() == ErrorCode::kInternal ? 1 : 0;
        throw;
      }
    }),
                 Error);
  };
  std::vector<std::vector<float>> data(static_cast<size_t>(size()), std::vector<float>(8));
  run([&](int rank) {
    float* const mine = data[static_cast<size_t>(rank)].data();
    ranks_.group(rank).all_reduce(mine, rank == 1 ? 7 : 8, DType::kF32, nullptr);
  });
  EXPECT_EQ(errors, size());
  run([&](int rank) {
    float* const mine = data[static_cast<size_t>(rank)].data();
    rank == 0 ? ranks_.group(rank).barrier(nullptr)
              : ranks_.group(rank).broadcast(mine, 8, DType::kF32, 0, nullptr);
  });
  EXPECT_EQ(errors, size());
  run([&](int rank) {
    ranks_.group(rank).all_reduce(data[static_cast<size_t>(rank)].data(), 8,
                                  rank == 0 ? DType::kI32 : DType::kF32, nullptr);
  });
  EXPECT_EQ(errors, 1) << "of a type that has no sums; the others are released";
}

TEST_P(Ranks, ComputeOnTheirOwnThreadsOrTakeTurnsOnThePool) {
  const int before = num_threads();
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<int64_t> sums(static_cast<size_t>(size()));
    ranks_.run([&](int rank) {
      std::atomic<int64_t> sum = 0;
      parallel_for(0, 100, 1, [&](int64_t i, int64_t) { sum += i; });
      sums[static_cast<size_t>(rank)] = sum;
      ranks_.group(rank).barrier(nullptr);
    });
    for (const int64_t sum : sums) EXPECT_EQ(sum, 4950);
  }
  set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Ranks, testing::Values(1, 2, 3, 4, 8));

TEST(Alone, KeepsWhatItHas) {
  Group& group = alone();
  EXPECT_EQ(group.rank(), 0);
  EXPECT_EQ(group.size(), 1);
  std::vector<float> x = {1.0f, 2.0f}, to(2);
  group.all_reduce(x.data(), 2, DType::kF32, nullptr);
  EXPECT_EQ(x, (std::vector{1.0f, 2.0f}));
  group.all_gather(x.data(), 2, DType::kF32, to.data(), nullptr);
  EXPECT_EQ(to, x);
}

}  // namespace
}  // namespace dmc::comm

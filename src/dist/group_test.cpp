// What every kind of group must do.
#include "dist/group.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "base/error.h"
#include "dist/gloo_group.h"
#include "dist/nccl_group.h"
#include "dist/thread_groups.h"

namespace dmc::dist {
namespace {

// `work` on each rank of a group of this many.
using Runner = void (*)(int size, const std::function<void(Group&)>& work);

struct Kind {
  const char* name;
  Runner run;
};

// With groups for processes, whose ranks may as well be threads that share nothing but a store:
// each has what `make(store, place, timing)` gives.
template <class Make>
void run_over_store(int size, const std::function<void(Group&)>& work, const Make& make) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  run_as_threads(size, [&](Group& thread) {
    const Place place = {
        .rank = thread.rank(), .size = size, .local_size = size, .host = "127.0.0.1"};
    const Timing quick = {.heartbeat = std::chrono::milliseconds(250)};
    const std::unique_ptr<Group> group = make(store, place, quick);
    work(*group);
  });
}

void run_on_gloo(int size, const std::function<void(Group&)>& work) {
  run_over_store(size, work, gloo_group);
}

// Whether who asks for NCCL gets one that sums on the CPU (tests/fakes/fake_nccl.cpp): it has that
// name inside, so it does unless LibTorch's CUDA build has brought NVIDIA's own.
bool nccl_is_fake() {
  void* const fake = dlopen(DMC_FAKE_NCCL, RTLD_NOW);
  if (fake == nullptr) throw internal_error(dlerror());
  return dlopen("libnccl.so.2", RTLD_NOW) == fake;
}

void run_on_nccl(int size, const std::function<void(Group&)>& work) {
  run_over_store(size, work, [](const Store& store, const Place& place, const Timing& timing) {
    return nccl_group(store, place, at::kCPU, timing);
  });
}

constexpr Kind kKinds[] = {
    {"threads", run_as_threads},
    {"gloo", run_on_gloo},
    {"nccl", run_on_nccl},
};

class Groups : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (GetParam().run == run_on_nccl && !nccl_is_fake()) {
      GTEST_SKIP() << "NVIDIA's own NCCL is found here, and is not for the CPU";
    }
  }
  static void on_each(int size, const std::function<void(Group&)>& work) {
    GetParam().run(size, work);
  }
};

TEST_P(Groups, RanksAreThoseOfItsSize) {
  std::atomic<int> seen = 0;
  on_each(3, [&](Group& group) {
    EXPECT_EQ(group.size(), 3);
    EXPECT_EQ(group.is_first(), group.rank() == 0);
    seen |= 1 << group.rank();
  });
  EXPECT_EQ(seen, 7);
}

TEST_P(Groups, SumsAreThoseOfAllRanks) {
  for (const int size : {1, 2, 3}) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kLong}) {
      on_each(size, [&](Group& group) {
        const at::Tensor x = at::arange(1000, type) * (group.rank() + 1);
        group.sum(x);
        group.settle();
        EXPECT_TRUE(at::equal(x, at::arange(1000, type) * (size * (size + 1) / 2)));
      });
    }
  }
}

TEST_P(Groups, SumsHaveTheSameBitsOnEveryRank) {
  std::vector<at::Tensor> sums(3);
  on_each(3, [&](Group& group) {
    const at::Tensor x = (at::arange(9999, at::kFloat) * (group.rank() + 0.7)).sin();
    group.sum(x);
    group.settle();
    sums[static_cast<size_t>(group.rank())] = x;
  });
  for (const at::Tensor& x : sums) EXPECT_TRUE(at::equal(x, sums.front()));
}

TEST_P(Groups, OneRankAloneMayHaveTheSum) {
  on_each(3, [](Group& group) {
    for (const int to : {0, 2, 1}) {
      const at::Tensor x = at::full({77}, group.rank() + 1.0);
      group.sum_to(x, to);
      group.settle();
      if (group.rank() != to) continue;
      EXPECT_TRUE(at::equal(x, at::full({77}, 6.0)));
    }
  });
}

TEST_P(Groups, EveryRankCanSpeakToAll) {
  on_each(3, [](Group& group) {
    for (const int from : {0, 2, 1}) {
      const at::Tensor x = at::full({5, 3}, static_cast<double>(group.rank()));
      group.broadcast(x, from);
      group.settle();
      EXPECT_TRUE(at::equal(x, at::full({5, 3}, static_cast<double>(from))));
    }
  });
}

TEST_P(Groups, AnEndBeforeTheOthersEndsThem) {
  EXPECT_THROW(on_each(3,
                       [](Group& group) {
                         if (group.rank() == 1) throw data_error("rank 1 read something bad");
                         EXPECT_THROW(
                             {
                               group.sum(at::zeros({4}));
                               group.settle();
                             },
                             PeerLost);
                       }),
               Error);
}

INSTANTIATE_TEST_SUITE_P(AllKinds, Groups, testing::ValuesIn(kKinds),
                         [](const auto& test) { return test.param.name; });

// A group of one makes every call that a larger one does.
TEST(NcclOnAGpu, OneRankRunsTheRealCalls) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU";
  const at::Device gpu("cuda:0");
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const std::unique_ptr<Group> group = nccl_group(store, Place{}, gpu);
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kLong}) {
    const at::Tensor x = at::arange(100000, at::TensorOptions(gpu).dtype(type));
    group->sum(x);
    group->sum_to(x, 0);
    group->broadcast(x, 0);
    group->settle();
    EXPECT_TRUE(at::equal(x.cpu(), at::arange(100000, type)));
  }
}

TEST(Alone, ChangesNothing) {
  EXPECT_EQ(alone().size(), 1);
  const at::Tensor x = at::arange(5);
  alone().sum(x);
  alone().sum_to(x, 0);
  alone().broadcast(x, 0);
  EXPECT_TRUE(at::equal(x, at::arange(5)));
}

}  // namespace
}  // namespace dmc::dist

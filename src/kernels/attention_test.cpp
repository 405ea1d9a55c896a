#include "kernels/attention.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "base/rng.h"
#include "kernels/ref/attention_ref.h"

namespace dmc::kernels {
namespace {

// Random numbers in [-1, 1).
std::vector<float> random_floats(size_t count, Rng& rng) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(2.0 * rng.uniform() - 1.0);
  return values;
}

// A stream of random slots in pages whose ids are shuffled.
struct Slots {
  std::vector<float> memory;
  std::vector<float*> table;
  std::vector<int32_t> pages;
  PoolView pool;

  Slots(int64_t slots, int page_slots, int head_dim, Rng& rng) {
    const auto count = static_cast<size_t>((slots + page_slots - 1) / page_slots);
    const size_t page_floats = static_cast<size_t>(2 * page_slots * head_dim);
    memory = random_floats(std::max<size_t>(1, count) * page_floats, rng);
    pages.resize(count);
    std::iota(pages.begin(), pages.end(), 0);
    for (size_t i = count; i > 1; --i) std::swap(pages[i - 1], pages[rng.below(i)]);
    for (size_t i = 0; i < count; ++i) table.push_back(memory.data() + i * page_floats);
    pool = {table.data(), page_slots, head_dim};
  }
};

struct Result {
  std::vector<AttnState> states;
  std::vector<float> out;
};

// exp of a score and sums of `slots` terms, each in f32, relative to a result of norm about 1.
double tolerance(int64_t slots, int head_dim) {
  return 8.0 * std::numeric_limits<float>::epsilon() *
         std::sqrt(static_cast<double>(slots + 1) * head_dim);
}

double error(const Result& a, const Result& b, int head_dim) {
  double largest = 0.0;
  for (size_t r = 0; r < a.states.size(); ++r) {
    largest = std::max<double>(largest, std::abs(a.states[r].sum / b.states[r].sum - 1.0));
    for (int i = 0; i < head_dim; ++i) {
      const size_t n = r * static_cast<size_t>(head_dim) + static_cast<size_t>(i);
      largest = std::max<double>(largest,
                                 std::abs(a.out[n] / a.states[r].sum - b.out[n] / b.states[r].sum));
    }
  }
  return largest;
}

// Calls fn for every backend, and for the SIMD one on every instruction set this machine has.
template <class Fn>
void for_each_variant(Fn&& fn) {
  for (const Backend& candidate : backends()) {
    if (candidate.name == "ref") continue;
    for (int64_t targets = hwy::SupportedTargets() & HWY_TARGETS; targets != 0;
         targets &= targets - 1) {
      const int64_t target = targets & -targets;
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(target);
      SCOPED_TRACE(std::string(candidate.name) + " " + hwy::TargetName(target));
      fn(candidate);
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

TEST(Attention, EveryBackendAgreesWithRefOnTheGrid) {
  uint64_t seed = 1;
  for (int head_dim : {20, 32, 64, 80, 96, 128}) {  // 20: no multiple of a vector
    for (int page_slots : {1, 8, 16, 64}) {
      for (int64_t slots : {0, 1, page_slots - 1, page_slots, page_slots + 1, 300}) {
        for (int group : {1, 4, 8}) {
          Rng rng(seed++);
          const Slots stream(slots, page_slots, head_dim, rng);
          const auto q = random_floats(static_cast<size_t>(group * head_dim), rng);
          const auto own = random_floats(q.size(), rng);
          const Result start{std::vector<AttnState>(static_cast<size_t>(group), {0.1f, 1.0f}), own};
          const SlotRange range{stream.pages.data(), slots / 3, slots};
          Result expected = start;
          ref::attend_slots(stream.pool, range, q.data(), group, 0.2f, expected.states.data(),
                            expected.out.data());
          for_each_variant([&](const Backend& b) {
            Result result = start;
            b.attend_slots(stream.pool, range, q.data(), group, 0.2f, result.states.data(),
                           result.out.data());
            ASSERT_LT(error(result, expected, head_dim), tolerance(slots, head_dim))
                << "attend_slots d=" << head_dim << " page=" << page_slots << " slots=" << slots
                << " group=" << group;
          });

          // Rows that see more and more: a staircase from 0 to all slots.
          std::vector<int64_t> visible(static_cast<size_t>(group));
          for (int r = 0; r < group; ++r) {
            visible[static_cast<size_t>(r)] = slots * r / std::max(1, group - 1);
          }
          const SlotRange all{stream.pages.data(), 0, slots};
          expected = start;
          ref::attend_rows(stream.pool, all, q.data(), group, visible.data(), 0.2f,
                           expected.states.data(), expected.out.data());
          for_each_variant([&](const Backend& b) {
            Result result = start;
            b.attend_rows(stream.pool, all, q.data(), group, visible.data(), 0.2f,
                          result.states.data(), result.out.data());
            ASSERT_LT(error(result, expected, head_dim), tolerance(slots, head_dim))
                << "attend_rows d=" << head_dim << " page=" << page_slots << " slots=" << slots
                << " rows=" << group;
          });
        }
      }
    }
  }
}

// The same bits alone, in a batch, and a second time.
TEST(Attention, DecodeDoesNotDependOnTheBatch) {
  Rng rng(5);
  constexpr int kHeadDim = 64, kGroup = 2;
  const Slots stream(1500, 16, kHeadDim, rng);
  const auto q = random_floats(kGroup * kHeadDim, rng), open = random_floats(2 * kHeadDim, rng);
  std::vector<float> alone(q.size()), batched(q.size() * 7);
  const auto item = [&](float* out, int64_t slots) {
    return DecodeItem{stream.pages.data(),    slots,    open.data(),
                      open.data() + kHeadDim, q.data(), out};
  };
  const DecodeItem one = item(alone.data(), 1500);
  decode_attention(stream.pool, std::span(&one, 1), kGroup, 0.125f);
  std::vector<DecodeItem> items;
  for (size_t i = 0; i < 7; ++i) {
    items.push_back(item(&batched[i * q.size()], i == 4 ? 1500 : static_cast<int64_t>(200 * i)));
  }
  decode_attention(stream.pool, items, kGroup, 0.125f);
  EXPECT_EQ(std::vector<float>(batched.begin() + static_cast<long>(4 * q.size()),
                               batched.begin() + static_cast<long>(5 * q.size())),
            alone);
}

}  // namespace
}  // namespace dmc::kernels

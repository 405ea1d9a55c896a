// Policies that evict, against their published meaning computed from all keys and values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "cache/eviction_testing.h"

namespace dmc::cache {
namespace {

using namespace eviction_testing;

// The literal meaning, one head at a time: which positions a cache holds, and their attention.
class Simulation {
 public:
  Simulation(const Text& text, std::string policy, int64_t budget)
      : text_(text), policy_(std::move(policy)), budget_(budget), kept_(kHeads), sums_(kHeads) {}

  void take(int64_t t) {
    std::vector<std::map<int64_t, double>> attention;
    for (int head = 0; head < kHeads; ++head) {
      kept_[static_cast<size_t>(head)].push_back(t);
      attention.push_back(attend(t, head));
      for (const auto& [position, weight] : attention.back()) {
        sums_[static_cast<size_t>(head)][position] += weight;
      }
    }
    for (size_t head = 0; head < kHeads; ++head) {
      if (static_cast<int64_t>(kept_[head].size()) <= budget_) continue;
      std::erase(kept_[head], victim(t, head, attention));
    }
  }
  std::vector<int64_t> kept(size_t head) const { return kept_[head]; }

 private:
  // Mean over the group of softmax(q K / sqrt(d)) on what is kept.
  std::map<int64_t, double> attend(int64_t t, int head) const {
    std::map<int64_t, double> mean;
    for (int g = 0; g < kGroup; ++g) {
      std::map<int64_t, double> weights;
      double total = 0.0;
      for (int64_t position : kept_[static_cast<size_t>(head)]) {
        total += weights[position] = std::exp(text_.score(t, head, g, position));
      }
      for (const auto& [position, weight] : weights) mean[position] += weight / total / kGroup;
    }
    return mean;
  }

  int64_t victim(int64_t t, size_t head, const std::vector<std::map<int64_t, double>>& attention) {
    int64_t worst = -1;
    double lowest = INFINITY;
    for (int64_t position : kept_[head]) {
      if (position == t) continue;
      double value = 0.0;
      if (policy_ == "window") {
        value = position < 4 ? INFINITY : static_cast<double>(position);
      } else if (policy_ == "h2o") {
        value = position > t - budget_ / 2 ? INFINITY : sums_[head][position];
      } else {
        for (const auto& of_head : attention) value += of_head.at(position);
      }
      if (value < lowest) {
        lowest = value;
        worst = position;
      }
    }
    return worst;
  }

  const Text& text_;
  std::string policy_;
  int64_t budget_;
  std::vector<std::vector<int64_t>> kept_;
  std::vector<std::map<int64_t, double>> sums_;
};

class Eviction : public testing::TestWithParam<const char*> {};

TEST_P(Eviction, KeepsWhatThePublishedMethodKeepsStepByStep) {
  for (int64_t budget : {10, 33, 64}) {
    Text text(static_cast<uint64_t>(budget));
    KvCache cache(config_for(GetParam(), budget));
    Simulation simulation(text, GetParam(), budget);
    const SequenceId id = cache.add_sequence();
    for (int64_t t = 0; t < kTokens; ++t) {
      cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
      cache.advance(id, 1);
      simulation.take(t);
      for (int head = 0; head < kHeads; ++head) {
        std::vector<int64_t> kept = cache.kept_positions(id, 0, head);
        std::ranges::sort(kept);
        ASSERT_EQ(kept, simulation.kept(static_cast<size_t>(head)))
            << "token " << t << " head " << head << " budget " << budget;
      }
      cache.check_invariants();
    }
  }
}

TEST_P(Eviction, APromptInOnePassIsTheSameAsStepByStep) {
  Text a(5), b(5);
  KvCache cache(config_for(GetParam(), 20));
  const SequenceId whole = cache.add_sequence(), steps = cache.add_sequence();
  cache.prefill(whole, 0, a.rows(0, kTokens));
  cache.advance(whole, kTokens);
  const SequenceId copy = cache.fork(whole);
  for (int64_t t = 0; t < kTokens; ++t) {
    cache.decode(std::span(&steps, 1), 0, b.rows(t, 1));
    cache.advance(steps, 1);
  }
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(cache.slots(whole), 2 * 20);
  EXPECT_EQ(cache.kept_positions(whole, 0, 1), cache.kept_positions(steps, 0, 1));
  for (SequenceId id : {whole, copy, steps}) cache.release(id);
  EXPECT_EQ(cache.bytes().total(), 0) << "pages must come back while and after sequences run";
}

// A budget given as a ratio grows with the text.
TEST_P(Eviction, ARatioHoldsAtEveryLength) {
  Text text(9);
  CacheConfig config = config_for(GetParam(), 0);
  config.cr = 2.0;
  KvCache cache(config);
  const SequenceId id = cache.add_sequence();
  for (int64_t t = 0; t < kTokens; ++t) {
    cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
    cache.advance(id, 1);
    const int64_t seen = t + 1, budget = std::max(policy::kLeastSlots, (seen + 1) / 2);
    ASSERT_EQ(cache.slots(id, 0, 0), std::min(seen, budget)) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, Eviction, testing::Values("window", "tova", "h2o"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace dmc::cache

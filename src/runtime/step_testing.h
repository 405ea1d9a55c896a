// For tests: steps of chance, and what must hold of them on whatever runs them.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "base/error.h"
#include "runtime/device/device_pair_testing.h"

namespace dmc::runtime {

inline std::vector<Variant> all_variants() {
  std::vector<Variant> all = variants();
  for (const Variant& variant : all_policies()) all.push_back(variant);
  return all;
}

// A step of some of `ids`: each decodes, or takes a chunk in, which may end its prompt.
struct RandomStep {
  std::deque<std::vector<int32_t>> tokens;
  std::vector<engine::StepItem> items;

  RandomStep(const Model& model, std::span<const engine::SequenceId> ids, int64_t longest,
             Rng& rng) {
    for (const engine::SequenceId id : ids) {
      if (rng.below(4) == 0) continue;
      const auto most = static_cast<uint64_t>(longest);
      const auto count = static_cast<int64_t>(rng.below(2) == 0 ? 1 : 1 + rng.below(most));
      tokens.push_back(random_text(model, count, rng.below(1 << 20)));
      items.push_back(
          {id, tokens.back(), rng.below(2) == 0, static_cast<engine::Wanted>(rng.below(3))});
    }
  }
};

inline std::vector<engine::SequenceId> ids_of(const std::vector<engine::Sequence>& sequences) {
  std::vector<engine::SequenceId> ids;
  for (const engine::Sequence& sequence : sequences) ids.push_back(sequence.id());
  return ids;
}

// The same steps by both, by `alone` an item at a time. A difference of 0: the same bits.
inline void expect_same_steps(Runner& mixed, Runner& alone, uint64_t seed, double allowed) {
  Rng rng(seed);
  std::vector<engine::Sequence> a, b;
  for (int i = 0; i < 4; ++i) {
    a.push_back(engine::Sequence::add(mixed));
    b.push_back(engine::Sequence::add(alone));
  }
  const std::vector<engine::SequenceId> in_mixed = ids_of(a), in_alone = ids_of(b);
  std::map<engine::SequenceId, engine::SequenceId> other;
  for (size_t i = 0; i < a.size(); ++i) other[in_mixed[i]] = in_alone[i];
  for (int round = 0; round < 7; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const RandomStep step(mixed.model(), in_mixed, 30, rng);
    const std::vector<float> got = mixed.step(step.items).logits;
    std::vector<float> wanted;
    for (engine::StepItem item : step.items) {
      item.sequence = other.at(item.sequence);
      const std::vector<float> logits = alone.step({&item, 1}).logits;
      wanted.insert(wanted.end(), logits.begin(), logits.end());
    }
    if (allowed == 0.0) {
      ASSERT_EQ(got, wanted);
    } else {
      expect_near(got, wanted, allowed);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(mixed.slots(in_mixed[i]), alone.slots(in_alone[i]));
}

// What one can see of a runner's sequences.
inline std::vector<std::vector<int64_t>> state(const Runner& runner,
                                               const std::vector<engine::Sequence>& sequences) {
  std::vector<std::vector<int64_t>> all;
  for (const engine::Sequence& sequence : sequences) {
    all.push_back(runner.slots(sequence.id()));
    all.back().push_back(sequence.length());
  }
  return all;
}

// Steps, forks and releases in an order of chance on few pages: a step either has its pages or
// throws and changes nothing, and there is no third. Returns how many threw.
inline int expect_all_or_nothing(Runner& runner, uint64_t seed) {
  Rng rng(seed);
  int refused = 0;
  std::vector<engine::Sequence> sequences;
  for (int round = 0; round < 80; ++round) {
    if (sequences.empty() || (sequences.size() < 4 && rng.below(4) == 0)) {
      const bool forks = !sequences.empty() && rng.below(2) == 0;
      sequences.push_back(forks ? sequences[rng.below(sequences.size())].fork()
                                : engine::Sequence::add(runner));
    } else if (rng.below(6) == 0) {
      sequences.erase(sequences.begin() + static_cast<long>(rng.below(sequences.size())));
      continue;
    }
    RandomStep step(runner.model(), ids_of(sequences), 40, rng);
    std::erase_if(step.items, [&](const engine::StepItem& item) {
      return runner.length(item.sequence) + std::ssize(item.tokens) > runner.max_positions();
    });
    int64_t pages = 0;
    for (const engine::StepItem& i : step.items)
      pages += runner.pages_for(i.sequence, std::ssize(i.tokens));
    const int64_t free = runner.free_pages();
    const auto before = state(runner, sequences);
    try {
      runner.step(step.items);
      EXPECT_LE(pages, free);
      EXPECT_LE(free - runner.free_pages(), pages);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kExhausted) << error.what();
      EXPECT_GT(pages, free);
      EXPECT_EQ(runner.free_pages(), free);
      EXPECT_EQ(state(runner, sequences), before);
      ++refused;
    }
    if (testing::Test::HasFailure()) return refused;
  }
  sequences.clear();
  EXPECT_EQ(runner.free_pages(), runner.total_pages());
  return refused;
}

}  // namespace dmc::runtime

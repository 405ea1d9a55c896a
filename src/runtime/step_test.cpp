// Steps of many sequences: what each gets, and what happens when pages run short.
#include <gtest/gtest.h>

#include <deque>

#include "base/error.h"
#include "runtime/device/device_pair_testing.h"

namespace dmc::runtime {
namespace {

using engine::Sequence;
using engine::SequenceId;
using engine::StepItem;
using engine::Wanted;

std::vector<Variant> all_variants() {
  std::vector<Variant> all = variants();
  for (const Variant& variant : all_policies()) all.push_back(variant);
  return all;
}

// A step of some of `ids`: each decodes, or takes a chunk in, which may end its prompt.
struct RandomStep {
  std::deque<std::vector<int32_t>> tokens;
  std::vector<StepItem> items;

  RandomStep(const Model& model, std::span<const SequenceId> ids, int64_t longest, Rng& rng) {
    for (const SequenceId id : ids) {
      if (rng.below(4) == 0) continue;
      const auto most = static_cast<uint64_t>(longest);
      const auto count = static_cast<int64_t>(rng.below(2) == 0 ? 1 : 1 + rng.below(most));
      tokens.push_back(random_text(model, count, rng.below(1 << 20)));
      items.push_back({id, tokens.back(), rng.below(2) == 0, static_cast<Wanted>(rng.below(3))});
    }
  }
};

std::vector<SequenceId> ids_of(const std::vector<Sequence>& sequences) {
  std::vector<SequenceId> ids;
  for (const Sequence& sequence : sequences) ids.push_back(sequence.id());
  return ids;
}

// The same steps by both, by `alone` an item at a time. A difference of 0: the same bits.
void expect_same_steps(Runner& mixed, Runner& alone, uint64_t seed, double allowed) {
  Rng rng(seed);
  std::vector<Sequence> a, b;
  for (int i = 0; i < 4; ++i) {
    a.push_back(Sequence::add(mixed));
    b.push_back(Sequence::add(alone));
  }
  const std::vector<SequenceId> in_mixed = ids_of(a), in_alone = ids_of(b);
  std::map<SequenceId, SequenceId> other;
  for (size_t i = 0; i < a.size(); ++i) other[in_mixed[i]] = in_alone[i];
  for (int round = 0; round < 7; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const RandomStep step(mixed.model(), in_mixed, 30, rng);
    const std::vector<float> got = mixed.step(step.items).logits;
    std::vector<float> wanted;
    for (StepItem item : step.items) {
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

TEST(Step, AMixedOneGivesEachSequenceTheBitsItGetsAlone) {
  uint64_t seed = 1000;
  for (const Variant& variant : all_variants()) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    DecoderRunner mixed(model, variant.options), alone(model, variant.options);
    expect_same_steps(mixed, alone, seed, 0.0);
    if (HasFatalFailure()) return;
  }
}

TEST(Step, OnADeviceAMixedOneIsNearWhatTheCpuGivesEachAlone) {
  uint64_t seed = 1200;
  for (const Variant& variant : all_variants()) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    if (!variant.runs_on_a_device()) continue;
    Pair pair(random_model(variant.config, DType::kF32, seed), variant.options);
    const double allowed = dtype_size(variant.options.kv) == 1 ? 2e-2 : 1e-3;
    expect_same_steps(pair.device, pair.cpu, seed, allowed);
    if (HasFatalFailure()) return;
  }
}

TEST(Step, RefusesATextThatDoesNotFitBeforeAnythingChanges) {
  Pair pair(random_model(small_config(), DType::kF32, 1), {.max_positions = 20});
  for (Runner* runner : {static_cast<Runner*>(&pair.cpu), static_cast<Runner*>(&pair.device)}) {
    const auto a = Sequence::add(*runner), b = Sequence::add(*runner);
    const std::vector<int32_t> text = random_text(runner->model(), 21, 2);
    const StepItem items[] = {{a.id(), std::span(text).first(5)}, {b.id(), text}};
    EXPECT_THROW(runner->step(items), Error);
    EXPECT_EQ(a.length(), 0);
    const StepItem twice[] = {{a.id(), text}, {a.id(), text}};
    EXPECT_THROW(runner->step(twice), Error);
  }
}

// What one can see of a runner's sequences.
std::vector<std::vector<int64_t>> state(const Runner& runner,
                                        const std::vector<Sequence>& sequences) {
  std::vector<std::vector<int64_t>> all;
  for (const Sequence& sequence : sequences) {
    all.push_back(runner.slots(sequence.id()));
    all.back().push_back(sequence.length());
  }
  return all;
}

// Steps, forks and releases in an order of chance on few pages: a step either has its pages or
// throws and changes nothing, and there is no third. Returns how many threw.
int expect_all_or_nothing(Runner& runner, uint64_t seed) {
  Rng rng(seed);
  int refused = 0;
  std::vector<Sequence> sequences;
  for (int round = 0; round < 80; ++round) {
    if (sequences.empty() || (sequences.size() < 4 && rng.below(4) == 0)) {
      const bool forks = !sequences.empty() && rng.below(2) == 0;
      sequences.push_back(forks ? sequences[rng.below(sequences.size())].fork()
                                : Sequence::add(runner));
    } else if (rng.below(6) == 0) {
      sequences.erase(sequences.begin() + static_cast<long>(rng.below(sequences.size())));
      continue;
    }
    RandomStep step(runner.model(), ids_of(sequences), 40, rng);
    std::erase_if(step.items, [&](const StepItem& item) {
      return runner.length(item.sequence) + std::ssize(item.tokens) > runner.max_positions();
    });
    int64_t pages = 0;
    for (const StepItem& i : step.items)
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

TEST(Step, HasItsPagesOrChangesNothing) {
  uint64_t seed = 1400;
  int refused[2] = {0, 0};
  for (const Variant& variant : all_variants()) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    RunnerOptions options = variant.options;
    options.max_pages = 8 * variant.config.num_layers * variant.config.num_kv_heads;
    const auto model = random_model(variant.config, DType::kF32, seed);
    DecoderRunner cpu(model, options);
    refused[0] += expect_all_or_nothing(cpu, seed);
    cpu.cache().check_invariants();
    if (variant.runs_on_a_device()) {
      Pair pair(model, options);
      refused[1] += expect_all_or_nothing(pair.device, seed);
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(refused[0], 50);
  EXPECT_GT(refused[1], 50);
}

// Whichever layer of whichever chunk it was, what is left is as if it had never been asked for.
TEST(Step, APromptThatIsGivenUpLeavesNothingBehind) {
  uint64_t seed = 1900;
  for (const Variant& variant : all_variants()) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    const std::vector<int32_t> text = random_text(*model, 50, seed);
    RunnerOptions options = variant.options;
    options.max_pages = 40 * variant.config.num_layers * variant.config.num_kv_heads;
    options.chunk = std::min<int64_t>(options.chunk, 20);
    DecoderRunner untouched(model, options);
    const std::vector<float> expected = engine::prefill(untouched, untouched.add_sequence(), text);
    int layers_left = 0;
    options.cancelled = [&] { return layers_left-- == 0; };
    DecoderRunner runner(model, options);
    for (const int asked : {0, 1, 3}) {
      layers_left = asked;
      const auto given_up = Sequence::add(runner);
      try {
        engine::prefill(runner, given_up.id(), text);
        ADD_FAILURE() << "went on after " << asked << " layers";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
      }
    }
    EXPECT_EQ(runner.free_pages(), runner.total_pages());
    layers_left = -1;  // never again
    EXPECT_EQ(engine::prefill(runner, runner.add_sequence(), text), expected);
    runner.cache().check_invariants();
    if (HasFailure()) return;
  }
}

TEST(Step, SucceedsOncePagesAreGivenBack) {
  Pair pair(random_model(small_config(), DType::kF32, 3), {.max_pages = 4 * 4});
  for (Runner* runner : {static_cast<Runner*>(&pair.cpu), static_cast<Runner*>(&pair.device)}) {
    const std::vector<int32_t> text = random_text(runner->model(), 33, 4);
    std::vector<Sequence> held;
    held.push_back(Sequence::add(*runner));
    engine::prefill(*runner, held[0].id(), text);  // 2 pages of each of 4 streams
    const auto more = Sequence::add(*runner);
    EXPECT_THROW(engine::prefill(*runner, more.id(), text), Error);
    EXPECT_EQ(more.length(), 0);
    held.clear();
    EXPECT_NO_THROW(engine::prefill(*runner, more.id(), text));
  }
}

}  // namespace
}  // namespace dmc::runtime

// Every policy of the table on a device, by HostDevice against DecoderRunner; above all those that
// drop slots because there are too many.
#include <gtest/gtest.h>

#include <utility>

#include "base/error.h"
#include "runtime/device/device_pair_testing.h"

namespace dmc::runtime {
namespace {

using engine::SequenceId;

// Keeps `budget` slots, or one in two.
RunnerOptions dropping(const std::string& policy, int64_t budget) {
  if (budget == 0) return {.compression = {.policy = policy, .cr = 2.0}};
  return {.compression = {.policy = policy, .budget = budget}};
}

std::vector<RunnerOptions> all_dropping() {
  std::vector<RunnerOptions> all;
  for (const policy::Policy& policy : policy::policies()) {
    if (policy.least_budget == 0) continue;
    for (const int64_t budget : {policy.least_budget + 4, int64_t{49}, int64_t{0}}) {
      all.push_back(dropping(std::string(policy.name), budget));
    }
  }
  return all;
}

std::string name_of(const RunnerOptions& options) {
  return options.compression.policy + " of " + std::to_string(options.compression.budget);
}

TEST(DevicePolicies, EachOfTheTableWritesWhatTheCpuWrites) {
  uint64_t seed = 300;
  for (const Variant& variant : all_policies()) {
    SCOPED_TRACE(variant.name);
    if (!variant.runs_on_a_device()) continue;
    const auto model = random_model(variant.config, DType::kF32, ++seed);
    Pair pair(model, variant.options);
    expect_same_text(pair, random_text(*model, 90, seed), 80, 1e-3);
  }
}

TEST(DevicePolicies, DelayedMergingIsRefused) {
  const auto model = random_model(delayed_config(5), DType::kF32, 299);
  EXPECT_THROW(Pair(model, RunnerOptions{}), Error);
}

TEST(DevicePolicies, SlotsGoAsOnTheCpuWhateverTheModel) {
  model::ModelConfig alone = small_config();
  alone.num_kv_heads = alone.num_heads;  // a query a head
  uint64_t seed = 320;
  for (const model::ModelConfig& config : {dmc_config(), alone, small_gpt2_config()}) {
    for (const RunnerOptions& options : all_dropping()) {
      SCOPED_TRACE(name_of(options) + ", seed " + std::to_string(++seed));
      const auto model = random_model(config, DType::kF32, seed);
      Pair pair(model, options);
      expect_same_text(pair, random_text(*model, 110, seed), 60, 1e-3);
      expect_same_text(pair, random_text(*model, 1, seed), 80, 1e-3);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(DevicePolicies, SlotsGoAsOnTheCpuWhateverTheirType) {
  for (const DType type : {DType::kI8, DType::kF8E4M3, DType::kF16, DType::kBF16}) {
    for (const char* policy : {"window", "tova", "h2o", "snapkv"}) {
      SCOPED_TRACE(std::string(policy) + " in " + std::string(dtype_name(type)));
      const auto model = random_model(small_config(), DType::kF32, 380);
      RunnerOptions options = dropping(policy, 44);
      options.kv = type;
      Pair pair(model, options);
      expect_same_text(pair, random_text(*model, 60, 381), 20, 2e-2);
    }
  }
}

// A prompt may end several times, come in chunks of any size, and go on in a fork.
TEST(DevicePolicies, PromptsFollowOneAnother) {
  for (RunnerOptions options : all_dropping()) {
    SCOPED_TRACE(name_of(options));
    options.chunk = 29;
    const auto model = random_model(small_config(), DType::kF32, 340);
    Pair pair(model, options);
    SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
    for (const int64_t tokens : {70, 3, 50, 31, 1}) {
      const auto prompt = random_text(*model, tokens, 341 + tokens);
      expect_near(engine::prefill(pair.device, b, prompt), engine::prefill(pair.cpu, a, prompt),
                  1e-3);
      const auto scored = random_text(*model, 5, 342 + tokens);  // no end of a prompt
      expect_near(engine::prefill_logits(pair.device, b, scored),
                  engine::prefill_logits(pair.cpu, a, scored), 1e-3);
      EXPECT_EQ(pair.device.slots(b), pair.cpu.slots(a));
      if (HasFatalFailure()) return;
      pair.cpu.release(std::exchange(a, pair.cpu.fork(a)));
      pair.device.release(std::exchange(b, pair.device.fork(b)));
    }
  }
}

TEST(DevicePolicies, ForksDropSlotsOfSharedPagesAlone) {
  for (const RunnerOptions& options : all_dropping()) {
    expect_same_forks(small_config(), options, 86);
    if (HasFatalFailure()) return;
  }
}

TEST(DevicePolicies, ABudgetBoundsTheMemory) {
  const auto model = random_model(small_config(), DType::kF32, 350);
  for (const char* policy : {"window", "tova", "h2o"}) {
    SCOPED_TRACE(policy);
    // 32 closed slots, beside which the next one wants a page: three for each of 4 streams.
    Pair pair(model, dropping(policy, 33), {.sequences = 1, .pages = 4 * 3});
    const SequenceId id = pair.device.add_sequence();
    engine::prefill(pair.device, id, random_text(*model, 150, 351));
    for (int step = 0; step < 100; ++step) {
      engine::decode(pair.device, {&id, 1}, random_text(*model, 1, 352 + step));
    }
    EXPECT_EQ(pair.device.slots(id), std::vector<int64_t>(4, 33));
    Pair roomy(model, dropping(policy, 33), {.sequences = 1});
    EXPECT_EQ(roomy.device.total_pages(), 4 * 3) << "no more than the streams can ever hold";
  }
}

// What cannot be dropped for want of a page is refused, and goes when the sequence goes.
TEST(DevicePolicies, ForksThatFindNoPageToDropFromFailAlone) {
  const auto model = random_model(small_config(), DType::kF32, 360);
  for (const char* policy : {"window", "h2o", "snapkv"}) {
    SCOPED_TRACE(policy);
    Pair pair(model, dropping(policy, 40), {.sequences = 2, .pages = 4 * 3});
    const auto prompt = random_text(*model, 40, 361);
    const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
    engine::prefill(pair.cpu, a, prompt);
    engine::prefill(pair.device, b, prompt);
    const SequenceId fork = pair.device.fork(b);
    EXPECT_THROW(engine::prefill(pair.device, fork, random_text(*model, 30, 362)), Error);
    pair.device.release(fork);
    for (int step = 0; step < 8; ++step) {
      const auto next = random_text(*model, 1, 363 + step);
      expect_near(engine::decode(pair.device, {&b, 1}, next),
                  engine::decode(pair.cpu, {&a, 1}, next), 1e-3);
    }
  }
}

TEST(DevicePolicies, SequencesOfABatchKeepTheirOwn) {
  for (const RunnerOptions& options : all_dropping()) {
    SCOPED_TRACE(name_of(options));
    const auto model = random_model(small_config(), DType::kF32, 370);
    Pair pair(model, options, {.sequences = 5});
    std::vector<SequenceId> a, b;
    for (int i = 0; i < 3; ++i) {
      const auto prompt = random_text(*model, 20 + 45 * i, 371 + i);
      a.push_back(pair.cpu.add_sequence());
      b.push_back(pair.device.add_sequence());
      expect_near(engine::prefill(pair.device, b.back(), prompt),
                  engine::prefill(pair.cpu, a.back(), prompt), 1e-3);
    }
    const int64_t waits = pair.host->waits();
    constexpr int kSteps = 50;
    for (int step = 0; step < kSteps; ++step) {
      const auto tokens = random_text(*model, 3, 800 + step);
      expect_near(engine::decode(pair.device, b, tokens), engine::decode(pair.cpu, a, tokens),
                  1e-3);
      if (HasFatalFailure()) return;
    }
    EXPECT_LE(pair.host->waits() - waits, 2 * kSteps) << "for logits, and for what was refused";
    for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
  }
}

}  // namespace
}  // namespace dmc::runtime

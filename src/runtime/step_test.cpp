// Steps of many sequences: what each gets, and what happens when pages run short.
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/device/device_pair_testing.h"
#include "runtime/step_testing.h"

namespace dmc::runtime {
namespace {

using engine::Sequence;
using engine::SequenceId;
using engine::StepItem;
using engine::Wanted;

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

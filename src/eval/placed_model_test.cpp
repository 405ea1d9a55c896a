// What commands do with a model on a device: the same scores, batches and forks as on the CPU.
#include "runtime/placed_model.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/generate.h"
#include "eval/score.h"
#include "runtime/device/device_testing.h"
#include "runtime/device/host_device.h"
#include "runtime/measure.h"

namespace dmc::runtime {
namespace {

std::shared_ptr<const Model> merging_model() {
  model::ModelConfig config = small_config();
  config.dmc = model::DmcConfig{.decision_offset = 0.05};
  return random_model(config, DType::kF32, 3);
}

PlacedModel on_device(const std::shared_ptr<const Model>& model) {
  return {model, std::make_shared<HostDevice>()};
}

TEST(PlacedModel, ScoresAreTheSameEverywhere) {
  const auto model = merging_model();
  text::EvalWindows windows;
  for (uint64_t seed : {1, 2, 3}) {
    windows.tokens.push_back(random_text(*model, 270, seed));
    windows.bytes.push_back(1000);
  }
  const auto score_on = [&](const PlacedModel& placed) {
    const auto runner = placed.make_runner({}, 1);
    return eval::score(*runner, windows, [](int64_t) {});
  };
  const eval::Score cpu = score_on(model), device = score_on(on_device(model));
  EXPECT_NEAR(device.loss, cpu.loss, 1e-5);
  EXPECT_EQ(device.next_token_accuracy, cpu.next_token_accuracy);
  EXPECT_EQ(device.cr_by_head, cpu.cr_by_head);
  EXPECT_GT(cpu.compression_ratio, 1.2);
}

TEST(PlacedModel, MeasuresTheSameRatiosEverywhere) {
  const auto model = merging_model();
  const RunnerOptions dense{.compression = {.policy = "dense"}};
  const auto measure_on = [&](const PlacedModel& placed) {
    return measure({{"dense", placed, dense}, {"dmc", placed, {}}}, random_text(*model, 64, 4),
                   {.contexts = {20, 64}, .batches = {1, 3}, .decode_tokens = 4, .repeats = 1},
                   [](int64_t, int64_t) {});
  };
  const auto cpu = measure_on(model), device = measure_on(on_device(model));
  ASSERT_EQ(device.size(), cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    EXPECT_EQ(device[i].subject, cpu[i].subject);
    EXPECT_EQ(device[i].compression_ratio, cpu[i].compression_ratio);
    EXPECT_GT(device[i].cache_bytes, 0);
  }
}

TEST(PlacedModel, SampledTextIsTheSameEverywhere) {
  const auto model = merging_model();
  const std::vector<int32_t> prompt = random_text(*model, 30, 5);
  const auto write_on = [&](const PlacedModel& placed) {
    const auto runner = placed.make_runner({});
    engine::GenerateOptions options{.max_tokens = 60};
    options.sampling = {.temperature = 1.0, .top_k = 20, .seed = 7};
    return engine::generate(
               *runner, runner->add_sequence(), prompt, options, [](int32_t) {},
               [] { return false; })
        .tokens;
  };
  EXPECT_EQ(write_on(on_device(model)), write_on(model));
}

// Where the program has no CUDA it says how to get it; where it has, that there is no GPU.
TEST(PlacedModel, AMissingGpuIsAnErrorOfTheFlag) {
  try {
    kernels::cuda::open_cuda_device();
    GTEST_SKIP() << "this machine has a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.field(), "device");
  }
}

}  // namespace
}  // namespace dmc::runtime

// The device's sampler (kernels/cuda/sampling/sample.h) on one lane against sample(): the same
// token for the same logits.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "base/rng.h"
#include "engine/sampler.h"
#include "kernels/cuda/lanes/team.h"
#include "kernels/cuda/sampling/sample.h"

namespace dmc::engine {
namespace {

namespace gpu = kernels::cuda;

int32_t sample_on_device(const std::vector<float>& logits, const SamplingOptions& options,
                         int64_t position) {
  static const auto bins = std::make_unique<gpu::SearchBins>();
  const gpu::SamplingRow row{static_cast<float>(options.temperature),
                             static_cast<int32_t>(options.top_k), options.top_p, options.seed};
  return gpu::sample_token<gpu::SoloTeam>(logits.data(), static_cast<int32_t>(logits.size()), row,
                                          position, *bins);
}

void expect_same_draws(const std::vector<float>& logits, const SamplingOptions& options,
                       int draws) {
  SCOPED_TRACE("temperature " + std::to_string(options.temperature) + ", top k " +
               std::to_string(options.top_k) + ", top p " + std::to_string(options.top_p) + " of " +
               std::to_string(logits.size()) + " tokens, seed " + std::to_string(options.seed));
  for (int64_t position = 0; position < draws; ++position) {
    ASSERT_EQ(sample_on_device(logits, options, position), sample(logits, options, position))
        << "position " << position;
  }
}

// Normal, about as wide as a language model's; `steps` above 0: rounded, so that many are equal.
std::vector<float> random_logits(size_t count, double width, double steps, Rng& rng) {
  std::vector<float> logits(count);
  for (float& x : logits) {
    double sum = 0.0;
    for (int i = 0; i < 12; ++i) sum += rng.uniform() - 0.5;
    x = static_cast<float>(width * sum);
    if (steps > 0.0) x = static_cast<float>(std::round(x * steps) / steps);
  }
  return logits;
}

TEST(DeviceSampler, DrawsWhatTheCpuDraws) {
  uint64_t seed = 1;
  for (const size_t count : {1, 2, 97, 3000}) {
    for (const double steps : {0.0, 2.0}) {
      Rng rng(seed);
      const std::vector<float> logits = random_logits(count, 3.0, steps, rng);
      for (const double temperature : {0.2, 0.8, 1.0, 5.0}) {
        for (const int64_t top_k : {0, 1, 20, 2999}) {
          for (const double top_p : {0.001, 0.5, 0.95, 1.0}) {
            expect_same_draws(logits, {temperature, top_k, top_p, ++seed}, 5);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(DeviceSampler, DrawsWhatTheCpuDrawsFromALargeVocabulary) {
  Rng rng(7);
  const std::vector<float> logits = random_logits(128256, 2.5, 0.0, rng);
  expect_same_draws(logits, {.temperature = 0.8, .seed = 1}, 10);
  expect_same_draws(logits, {.temperature = 1.5, .top_k = 50, .top_p = 0.9, .seed = 2}, 10);
  expect_same_draws(logits, {.temperature = 1.0, .top_p = 1.0, .seed = 3}, 10);
}

TEST(DeviceSampler, EqualLogitsAreDrawnInTheOrderOfTheirIds) {
  const std::vector<float> same(5000, -1.25f);
  expect_same_draws(same, {.temperature = 1.0, .top_p = 1.0, .seed = 1}, 100);
  expect_same_draws(same, {.temperature = 1.0, .top_k = 30, .top_p = 0.5, .seed = 2}, 100);
  std::vector<float> zeros(100, 0.0f);
  for (size_t i = 0; i < zeros.size(); i += 3) zeros[i] = -0.0f;
  expect_same_draws(zeros, {.temperature = 1.0, .top_k = 10, .top_p = 1.0, .seed = 3}, 100);
}

TEST(DeviceSampler, MasksAndExtremesAreNoTrouble) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::vector<float> logits(300, kNever);
  logits[17] = 1e30f, logits[200] = -1e30f, logits[250] = std::nextafter(1e30f, 0.0f);
  for (const double temperature : {1e-30, 1.0, 100.0}) {
    expect_same_draws(logits, {.temperature = temperature, .seed = 1}, 50);
    expect_same_draws(logits, {.temperature = temperature, .top_k = 7, .top_p = 1.0}, 50);
  }
  logits.assign(300, kNever);
  logits[17] = 0.5f, logits[18] = 0.5f, logits[3] = -2.0f;
  expect_same_draws(logits, {.temperature = 1.0, .top_p = 1.0, .seed = 4}, 200);
}

TEST(DeviceSampler, TemperatureZeroTakesTheLikeliest) {
  Rng rng(9);
  expect_same_draws(random_logits(500, 3.0, 1.0, rng), {.temperature = 0.0}, 1);
}

TEST(DeviceSampler, LogitsThatAreNoNumbersChooseNoToken) {
  std::vector<float> logits(50, 1.0f);
  logits[20] = std::nanf("");
  EXPECT_EQ(sample_on_device(logits, {}, 0), -1);
}

}  // namespace
}  // namespace dmc::engine

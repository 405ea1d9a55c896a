// For tests of the device's runtime: a model's two runners, and what they must say alike.
#pragma once

#include <gtest/gtest.h>

#include "runtime/device/device_runner.h"
#include "runtime/device/device_testing.h"
#include "runtime/device/host_device.h"
#include "runtime/variants_testing.h"

namespace dmc::runtime {

// A model's two runners.
struct Pair {
  explicit Pair(const std::shared_ptr<const Model>& model, const RunnerOptions& options = {},
                const DeviceRoom& room = {})
      : cpu(model, options),
        host(std::make_shared<HostDevice>()),
        device(upload_model(host, model), options, room) {}

  DecoderRunner cpu;
  std::shared_ptr<HostDevice> host;
  DeviceRunner device;
};

inline void expect_near(const std::vector<float>& got, const std::vector<float>& wanted,
                        double allowed) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], allowed) << "number " << i;
}

// A prompt and `steps` likeliest tokens behind it.
inline void expect_same_text(Pair& pair, std::span<const int32_t> prompt, int64_t steps,
                             double allowed) {
  const engine::SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  std::vector<float> wanted = engine::prefill(pair.cpu, a, prompt),
                     got = engine::prefill(pair.device, b, prompt);
  for (int64_t step = 0; step < steps; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    expect_near(got, wanted, allowed);
    if (testing::Test::HasFatalFailure()) return;
    const int32_t token = likeliest(wanted);
    ASSERT_EQ(likeliest(got), token);
    wanted = engine::decode(pair.cpu, {&a, 1}, {&token, 1});
    got = engine::decode(pair.device, {&b, 1}, {&token, 1});
  }
  EXPECT_EQ(pair.device.slots(b), pair.cpu.slots(a));
  EXPECT_EQ(pair.device.length(b), pair.cpu.length(a));
  EXPECT_EQ(pair.device.compression_ratio(b), pair.cpu.compression_ratio(a));
}

// Forks of forks, decoded together and alone, taking prompts in, released in any order. In the end
// every page is free again.
inline void expect_same_forks(const model::ModelConfig& config, const RunnerOptions& options,
                              uint64_t seed) {
  SCOPED_TRACE(options.compression.policy + ", seed " + std::to_string(seed));
  constexpr int kRows = 6;
  const auto model = random_model(config, DType::kF32, seed);
  Pair pair(model, options, {.sequences = kRows});
  std::vector<engine::SequenceId> a = {pair.cpu.add_sequence()}, b = {pair.device.add_sequence()};
  const std::vector<int32_t> prompt = random_text(*model, 120, 86);
  engine::prefill(pair.cpu, a[0], prompt);
  engine::prefill(pair.device, b[0], prompt);
  const int64_t alone = pair.device.cache_bytes();
  b.push_back(pair.device.fork(b[0]));
  a.push_back(pair.cpu.fork(a[0]));
  EXPECT_LT(pair.device.cache_bytes(), 2 * alone) << "pages are shared";
  Rng rng(seed);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const size_t which = rng.below(a.size());
    if (rng.below(3) == 0 && a.size() < kRows) {
      a.push_back(pair.cpu.fork(a[which]));
      b.push_back(pair.device.fork(b[which]));
    } else if (rng.below(4) == 0 && a.size() > 1) {
      pair.cpu.release(a[which]);
      pair.device.release(b[which]);
      a.erase(a.begin() + static_cast<long>(which));
      b.erase(b.begin() + static_cast<long>(which));
    } else if (rng.below(4) == 0) {
      const auto more = random_text(*model, 1 + static_cast<int64_t>(rng.below(20)), 500 + round);
      if (pair.cpu.length(a[which]) + 30 > pair.cpu.max_positions()) continue;
      expect_near(engine::prefill(pair.device, b[which], more),
                  engine::prefill(pair.cpu, a[which], more), 1e-3);
    } else {
      const auto tokens = random_text(*model, static_cast<int64_t>(a.size()), 600 + round);
      expect_near(engine::decode(pair.device, b, tokens), engine::decode(pair.cpu, a, tokens),
                  1e-3);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
  for (const engine::SequenceId id : b) pair.device.release(id);
  EXPECT_EQ(pair.device.cache_bytes(), 0);
}

inline engine::Writing greedy(const DeviceRunner& runner, engine::SequenceId sequence,
                              int32_t token) {
  return {sequence, token, runner.length(sequence) + 1, {.temperature = 0.0}, {}};
}

}  // namespace dmc::runtime

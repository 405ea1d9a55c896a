// For tests of the device's runtime: a model's two runners, and what they must say alike.
#pragma once

#include <gtest/gtest.h>

#include "runtime/device/device_runner.h"
#include "runtime/device/device_testing.h"
#include "runtime/device/host_device.h"

namespace dmc::runtime {

inline io::ModelConfig dmc_config(int64_t window = 12) {
  io::ModelConfig config = small_config();
  config.dmc = io::DmcConfig{.window = window, .decision_offset = 0.05};
  return config;
}

inline io::ModelConfig dms_config(int64_t delay) {
  io::ModelConfig config = dmc_config(delay);
  config.dmc->method = "dms";
  return config;
}

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

inline engine::Writing greedy(const DeviceRunner& runner, engine::SequenceId sequence,
                              int32_t token) {
  return {sequence, token, runner.length(sequence) + 1, {.temperature = 0.0}, {}};
}

}  // namespace dmc::runtime

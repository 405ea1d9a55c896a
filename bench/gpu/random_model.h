// A model of a known shape with random weights on a device, at a forced ratio, and as many
// sequences as there is memory for.
#pragma once

#include <memory>
#include <vector>

#include "model/model_config.h"
#include "runtime/device/device_runner.h"

namespace dmc::bench {

constexpr double kDense = 0.0;  // as a ratio: the policy dense instead of a forced one

struct RandomWeights {
  std::shared_ptr<const runtime::DeviceWeights> weights;
  int64_t bytes = 0;
};

// For a model of the Llama family, in bf16: the same random numbers over and over.
RandomWeights random_weights(kernels::cuda::Device& device, const model::ModelConfig& config);

// How a model runs.
struct Setup {
  model::ModelConfig config;
  DType kv = DType::kBF16;
  double cr = kDense;
  int64_t longest = 0;     // tokens of a sequence
  int most_sequences = 1;  // fewer where memory has no room for them
};

// A runner with its room; *sequences: how many it can have at a time. Error(kInternal) if the
// memory does not do for one.
std::unique_ptr<runtime::DeviceRunner> make_runner(
    const std::shared_ptr<kernels::cuda::Device>& device, const RandomWeights& weights,
    const Setup& setup, int* sequences);

std::vector<int32_t> random_prompt(const model::ModelConfig& config, int64_t tokens);

}  // namespace dmc::bench

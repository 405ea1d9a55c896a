#include "model/rope_frequencies.h"

#include <cmath>
#include <numbers>

namespace dmc::model {
namespace {

// Llama 3.1: slow pairs, which never turned fully in training, are stretched to the longer context;
// fast ones, which tell neighbours apart, keep their speed.
double llama3(double frequency, const model::RopeConfig& rope) {
  const double turns =
      static_cast<double>(rope.original_positions) * frequency / (2.0 * std::numbers::pi);
  if (turns > rope.high_freq_factor) return frequency;
  if (turns < rope.low_freq_factor) return frequency / rope.factor;
  const double keep =
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return keep * frequency + (1.0 - keep) * frequency / rope.factor;
}

double scaled(double frequency, const model::RopeConfig& rope) {
  switch (rope.scaling) {
    case model::RopeConfig::Scaling::kNone:
      return frequency;
    case model::RopeConfig::Scaling::kLinear:
      return frequency / rope.factor;
    case model::RopeConfig::Scaling::kLlama3:
      return llama3(frequency, rope);
  }
  return frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const model::ModelConfig& config) {
  if (!config.rope) return {};
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    frequencies.push_back(scaled(std::pow(config.rope->theta, exponent), *config.rope));
  }
  return frequencies;
}

}  // namespace dmc::model

// For tests of the device's runtime: models with random weights, and what they say.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "runtime/weights.h"

namespace dmc::runtime {

inline std::vector<float> random_numbers(int64_t count, double width, Rng& rng) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& x : numbers) x = static_cast<float>(width * (2.0 * rng.uniform() - 1.0));
  return numbers;
}

inline Linear random_linear(int64_t outputs, int64_t inputs, DType type, bool bias, Rng& rng) {
  Linear linear{{outputs, inputs, type}, {}};
  const double width = 1.7 / std::sqrt(static_cast<double>(inputs));
  linear.weights.set_rows(0, outputs, random_numbers(outputs * inputs, width, rng).data());
  if (bias) linear.bias = random_numbers(outputs, 0.5, rng);
  return linear;
}

inline Norm random_norm(int64_t width, Rng& rng) {
  Norm norm{random_numbers(width, 0.3, rng), {}, io::NormKind::kRms, io::ModelConfig{}.norm_eps};
  for (float& x : norm.weight) x += 1.0f;
  return norm;
}

// A small Llama: 2 layers, 4 query heads of 16 on 2 KV heads.
inline io::ModelConfig small_config() {
  io::ModelConfig config;
  config.vocab_size = 97;
  config.hidden_size = 40;
  config.intermediate_size = 56;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.max_positions = 300;
  return config;
}

inline std::shared_ptr<const Model> random_model(const io::ModelConfig& config, DType type,
                                                 uint64_t seed) {
  Rng rng(seed);
  auto model = std::make_shared<Model>();
  model->config = config;
  const int64_t D = config.hidden_size, d = config.head_dim;
  const int64_t queries = config.num_heads * d, keys = config.num_kv_heads * d;
  DecoderWeights& w = model->weights;
  const auto table = [&] {
    return std::make_shared<kernels::PackedWeights>(
        std::move(random_linear(config.vocab_size, D, type, false, rng).weights));
  };
  w.embedding = table();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    w.layers.push_back({random_norm(D, rng), random_norm(D, rng),
                        config.qk_norm ? random_norm(d, rng) : Norm{},
                        config.qk_norm ? random_norm(d, rng) : Norm{},
                        random_linear(queries + 2 * keys, D, type, config.attention_bias, rng),
                        random_linear(D, queries, type, false, rng),
                        random_linear(2 * config.intermediate_size, D, type, false, rng),
                        random_linear(D, config.intermediate_size, type, false, rng)});
  }
  w.final_norm = random_norm(D, rng);
  w.head = config.tie_embeddings ? w.embedding : table();
  return model;
}

inline std::vector<int32_t> random_text(const Model& model, int64_t tokens, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> text;
  while (static_cast<int64_t>(text.size()) < tokens) {
    text.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.config.vocab_size))));
  }
  return text;
}

inline int32_t likeliest(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

}  // namespace dmc::runtime

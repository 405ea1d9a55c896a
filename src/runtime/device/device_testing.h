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

inline Norm random_norm(int64_t width, model::NormKind kind, Rng& rng) {
  Norm norm{random_numbers(width, 0.3, rng), {}, kind, model::ModelConfig{}.norm_eps};
  for (float& x : norm.weight) x += 1.0f;
  if (kind == model::NormKind::kLayer) norm.bias = random_numbers(width, 0.3, rng);
  return norm;
}

// A small Llama: 2 layers, 4 query heads of 16 on 2 KV heads.
inline model::ModelConfig small_config() {
  model::ModelConfig config;
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

// As GPT-2: no rotary embedding, a plain MLP, layer norms, biases.
inline model::ModelConfig small_gpt2_config() {
  model::ModelConfig config = small_config();
  config.num_kv_heads = config.num_heads;
  config.rope.reset();
  config.learned_positions = true;
  config.norm = model::NormKind::kLayer;
  config.activation = model::Activation::kGeluTanh;
  config.attention_bias = true;
  config.tie_embeddings = true;
  return config;
}

// As BERT: norms behind blocks, too, and one behind the embedding; a head that transforms first.
inline model::ModelConfig small_bert_config() {
  model::ModelConfig config = small_gpt2_config();
  config.post_norm = true;
  config.token_types = 2;
  config.activation = model::Activation::kGelu;
  return config;
}

inline LayerWeights random_layer(const model::ModelConfig& config, DType type, Rng& rng) {
  const int64_t D = config.hidden_size, d = config.head_dim, width = config.intermediate_size;
  const int64_t queries = config.num_heads * d, keys = config.num_kv_heads * d;
  const bool gated = config.activation == model::Activation::kSiluGated;
  const auto head_norm = [&] {
    return config.qk_norm ? random_norm(d, model::NormKind::kRms, rng) : Norm{};
  };
  LayerWeights layer{random_norm(D, config.norm, rng),
                     random_norm(D, config.norm, rng),
                     head_norm(),
                     head_norm(),
                     random_linear(queries + 2 * keys, D, type, config.attention_bias, rng),
                     random_linear(D, queries, type, !gated, rng),
                     random_linear(gated ? 2 * width : width, D, type, !gated, rng),
                     random_linear(D, width, type, !gated, rng),
                     {}};
  if (config.has_adapter()) {
    layer.adapter = {random_norm(D, model::NormKind::kRms, rng),
                     random_linear(config.adapter_outputs(), D, DType::kF32, false, rng)};
  }
  return layer;
}

inline std::shared_ptr<const Model> random_model(const model::ModelConfig& config, DType type,
                                                 uint64_t seed) {
  Rng rng(seed);
  auto model = std::make_shared<Model>();
  model->config = config;
  const int64_t D = config.hidden_size;
  DecoderWeights& w = model->weights;
  const auto table = [&] {
    return std::make_shared<kernels::PackedWeights>(
        std::move(random_linear(config.vocab_size, D, type, false, rng).weights));
  };
  w.embedding = table();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    w.layers.push_back(random_layer(config, type, rng));
  }
  if (!config.post_norm) w.final_norm = random_norm(D, config.norm, rng);
  w.head = config.tie_embeddings ? w.embedding : table();
  if (config.learned_positions) w.positions = random_numbers(config.max_positions * D, 0.2, rng);
  if (config.token_types == 0) return model;
  w.token_type = random_numbers(D, 0.2, rng);
  w.embedding_norm = random_norm(D, config.norm, rng);
  w.head_transform = random_linear(D, D, type, true, rng);
  w.head_norm = random_norm(D, config.norm, rng);
  w.head_bias = random_numbers(config.vocab_size, 0.5, rng);
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

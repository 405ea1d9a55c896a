// For tests: a tiny random model of each family.
#pragma once

#include <ATen/ops/randn.h>

#include <vector>

#include "nn/decoder.h"
#include "nn/weights.h"

namespace dmc::nn {

// Dense configurations of 3 layers and a vocabulary of 50, as each family's config.json would give
// them.
inline std::vector<model::ModelConfig> tiny_configs() {
  model::ModelConfig llama;
  llama.vocab_size = 50;
  llama.hidden_size = 48;
  llama.intermediate_size = 64;
  llama.num_layers = 3;
  llama.num_heads = 4;
  llama.num_kv_heads = 2;
  llama.head_dim = 16;
  llama.max_positions = 128;
  model::ModelConfig scaled = llama, qwen2 = llama, qwen3 = llama, phi3 = llama, gpt2 = llama;
  scaled.rope->scaling = model::RopeConfig::Scaling::kLlama3;
  scaled.rope->factor = 4.0;
  scaled.rope->original_positions = 32;
  qwen2.model_type = "qwen2";
  qwen2.attention_bias = true;
  qwen3.model_type = "qwen3";
  qwen3.qk_norm = true;
  phi3.model_type = "phi3";
  gpt2.model_type = "gpt2";
  gpt2.num_kv_heads = gpt2.num_heads;
  gpt2.head_dim = gpt2.hidden_size / gpt2.num_heads;
  gpt2.norm = model::NormKind::kLayer;
  gpt2.activation = model::Activation::kGeluTanh;
  gpt2.rope.reset();
  gpt2.learned_positions = true;
  model::ModelConfig bert = gpt2;
  bert.model_type = "bert";
  bert.post_norm = bert.tie_embeddings = true;
  bert.token_types = 2;
  return {llama, scaled, qwen2, qwen3, phi3, gpt2, bert};
}

// Fresh weights, then noise on all parameters: fresh biases are 0 and norms 1, which would hide
// errors.
inline Decoder random_model(const model::ModelConfig& config) {
  Decoder model = Decoder::create(config, 5);
  at::Generator generator = nn::generator(6);
  for (const auto& [name, parameter] : model.parameters()) {
    parameter.add_(at::randn(parameter.sizes(), generator), 0.02);
  }
  return model;
}

}  // namespace dmc::nn

// The Llama 2 architecture with grouped-query attention: RMSNorm, rotary attention, SwiGLU.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/model_config.h"
#include "nn/attention.h"

namespace dmc::models {

class Llama {
 public:
  // From a Hugging Face directory, weights converted to `dtype`; Error(kData) for a tensor that is
  // missing or has another shape than config.json implies.
  static Llama load(const std::filesystem::path& dir, at::ScalarType dtype = at::kFloat);
  // Fresh weights: normal(0, 0.02), output projections scaled down by sqrt(2 * layers).
  static Llama create(const io::ModelConfig& config, uint64_t seed);

  // config.json and model.safetensors (weights as `dtype`, a tied head left out) into `dir`.
  void save(const std::filesystem::path& dir, at::ScalarType dtype) const;

  // tokens_BT: int64. Returns the normed last hidden states [B, T, hidden].
  at::Tensor hidden(const at::Tensor& tokens_BT, nn::AttentionStrategy& attention) const;
  // Logits [..., vocab] of hidden states [..., hidden].
  at::Tensor logits(const at::Tensor& hidden) const;

  const io::ModelConfig& config() const { return config_; }
  io::ModelConfig& config() { return config_; }
  // By Hugging Face name, e.g. "model.layers.0.self_attn.q_proj.weight".
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }
  at::Tensor parameter(const std::string& name) const { return parameters_.at(name); }

 private:
  struct Layer {
    at::Tensor input_norm, q, k, v, o, post_norm, gate, up, down;
  };
  Llama(const io::ModelConfig& config, std::map<std::string, at::Tensor> parameters);

  io::ModelConfig config_;
  std::map<std::string, at::Tensor> parameters_;
  at::Tensor embedding_, final_norm_, head_;
  std::vector<Layer> layers_;
};

}  // namespace dmc::models

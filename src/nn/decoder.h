// A decoder-only transformer of any family: what it computes follows from the model's config, where
// its matrices are from the family's layout.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "model/families/family.h"
#include "model/model_config.h"
#include "nn/attention.h"
#include "nn/placement.h"
#include "nn/weights.h"

namespace dmc::nn {

class Decoder {
 public:
  // `parameters` under the names and with the shapes of the layout of `config`.
  Decoder(const model::ModelConfig& config, std::map<std::string, at::Tensor> parameters);
  // From a Hugging Face directory, weights converted to `dtype`; Error(kData) for a tensor that is
  // missing or has another shape than config.json implies.
  static Decoder load(const std::filesystem::path& dir, at::ScalarType dtype = at::kFloat);
  // Fresh weights: normal(0, 0.02), output projections scaled down by sqrt(2 * layers).
  static Decoder create(const model::ModelConfig& config, uint64_t seed);

  // Moves the parameters, and computes like that from then on.
  void place(const nn::Placement& placement);

  // config.json and the weights (a tied head left out) into `dir`, see nn::save_model.
  void save(const std::filesystem::path& dir, const nn::WeightForm& form) const;

  // tokens_BT: int64. positions_BT: likewise, where each token stands in its text; needed only with
  // learned positions; undefined: 0..T-1. Returns the normed last hidden states [B, T, hidden].
  at::Tensor hidden(const at::Tensor& tokens_BT, nn::AttentionStrategy& attention,
                    const at::Tensor& positions_BT = {}) const;
  // Logits [..., vocab] of hidden states [..., hidden].
  at::Tensor logits(const at::Tensor& hidden) const;

  const model::ModelConfig& config() const { return config_; }
  model::ModelConfig& config() { return config_; }
  const model::DecoderLayout& layout() const { return layout_; }
  // By Hugging Face name, e.g. "model.layers.0.self_attn.q_proj.weight".
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }
  at::Tensor parameter(const std::string& name) const { return parameters_.at(name); }
  int64_t parameter_count() const;
  // The part of a parameter that is this matrix [rows, columns], or its bias [rows] (undefined if
  // it has none): views, so that gradients and changes reach the parameter.
  at::Tensor weight(const model::LinearSource& source) const;
  at::Tensor bias(const model::LinearSource& source) const;

 private:
  // x in the dtype of products.
  at::Tensor operand(const at::Tensor& x) const;
  at::Tensor linear(const at::Tensor& x, const model::LinearSource& source) const;
  at::Tensor norm(const at::Tensor& x, const model::NormSource& source) const;
  at::Tensor embed(const at::Tensor& tokens_BT, const at::Tensor& positions_BT) const;
  // What the layer's adapter says of its input, the residual stream; undefined without an adapter.
  at::Tensor decisions(const model::LayerLayout& layer, const at::Tensor& x_BTD) const;
  at::Tensor attention_block(int64_t layer, const at::Tensor& x_BTD,
                             const at::Tensor& decisions_BTR,
                             nn::AttentionStrategy& attention) const;
  at::Tensor gelu(const at::Tensor& x) const;
  at::Tensor mlp_block(const model::LayerLayout& layer, const at::Tensor& x_BTD) const;

  model::ModelConfig config_;
  model::DecoderLayout layout_;
  std::map<std::string, at::Tensor> parameters_;
  std::optional<at::ScalarType> products_;  // nn::Placement::products
};

}  // namespace dmc::nn

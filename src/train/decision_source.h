// Where a model's decisions come from while it is trained: the last channel of each head of q and
// k, or its adapter. model::DmcConfig::decision_source names them.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/model_config.h"
#include "nn/attention.h"

namespace dmc::train {

class DecisionSource {
 public:
  // "neuron" or "adapter"; `config` must outlive this.
  DecisionSource(const std::string& name, const model::ModelConfig& config, at::Device device);

  // Logits [B, T, K], in f32 at least, without scale, offset and noise: of a decision for each
  // token and KV head, and (for methods in which tokens share slots) of the token's importance.
  at::Tensor decision(const nn::AttentionInput& in) const;
  at::Tensor importance(const nn::AttentionInput& in) const;
  // What attention sees of q or k: all channels but one that decides.
  at::Tensor visible(const at::Tensor& heads) const;

 private:
  const model::ModelConfig& config_;
  bool adapter_;
  at::Tensor channels_;  // [d]: 1 but for the decision channel
};

}  // namespace dmc::train

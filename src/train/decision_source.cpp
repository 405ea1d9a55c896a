#include "train/decision_source.h"

#include <ATen/ops/ones.h>

#include "ops/precision.h"

namespace dmc::train {

DecisionSource::DecisionSource(const std::string& name, const model::ModelConfig& config,
                               at::Device device)
    : config_(config), adapter_(name == "adapter"), channels_(at::ones({config.head_dim}, device)) {
  channels_[-1].fill_(0.0);
}

at::Tensor DecisionSource::decision(const nn::AttentionInput& in) const {
  if (adapter_) return in.decisions_BTR.narrow(2, 0, config_.num_kv_heads);
  return ops::at_least_f32(in.k_BTKd.select(3, -1));
}

at::Tensor DecisionSource::importance(const nn::AttentionInput& in) const {
  if (adapter_) return in.decisions_BTR.narrow(2, config_.num_kv_heads, config_.num_kv_heads);
  return ops::at_least_f32(in.q_BTHd.select(3, -1))
      .unflatten(2, at::IntArrayRef{config_.num_kv_heads, config_.group_size()})
      .mean(-1);
}

at::Tensor DecisionSource::visible(const at::Tensor& heads) const {
  return adapter_ ? heads : heads * channels_.to(heads.scalar_type());
}

}  // namespace dmc::train

// What a transformer does with keys and values is a strategy: the model hands over q, k and v
// before rotary embedding, the strategy decides, pools, rotates, stores and attends.
#pragma once

#include <ATen/core/Tensor.h>

namespace dmc::nn {

// Shape legend: B sequences, T tokens, H query heads, K KV heads, d head size.
struct AttentionInput {
  at::Tensor q_BTHd, k_BTKd, v_BTKd;  // in the dtype of products (nn::Placement), before rotary
  // What the layer's adapter says, [B, T, ModelConfig::adapter_outputs()], f32 (tests: f64);
  // undefined without one.
  at::Tensor decisions_BTR;
};

class AttentionStrategy {
 public:
  virtual ~AttentionStrategy() = default;
  // Returns [B, T, H, d] in the dtype of q.
  virtual at::Tensor attend(int64_t layer, const AttentionInput& in) = 0;
};

}  // namespace dmc::nn

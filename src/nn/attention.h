// What a transformer does with keys and values is a strategy: the model hands over q, k and v
// before rotary embedding, the strategy decides, pools, rotates, stores and attends.
#pragma once

#include <ATen/core/Tensor.h>

namespace dmc::nn {

// Shape legend: B sequences, T tokens, H query heads, K KV heads, d head size.
class AttentionStrategy {
 public:
  virtual ~AttentionStrategy() = default;
  // q_BTHd, k_BTKd, v_BTKd: f32 (tests: f64), before rotary. Returns [B, T, H, d].
  virtual at::Tensor attend(int64_t layer, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                            const at::Tensor& v_BTKd) = 0;
};

}  // namespace dmc::nn

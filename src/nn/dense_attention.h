// The uncompressed model over whole sequences: rotary embedding and plain causal attention.
#pragma once

#include "nn/attention.h"
#include "nn/rope.h"

namespace dmc::nn {

class DenseAttention : public AttentionStrategy {
 public:
  // The rotary table covers sequences of up to `positions` tokens.
  DenseAttention(int64_t positions, int64_t head_dim, double theta);
  at::Tensor attend(int64_t layer, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                    const at::Tensor& v_BTKd) override;

 private:
  Rope rope_;
};

}  // namespace dmc::nn

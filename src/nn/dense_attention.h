// The uncompressed model over whole sequences: rotary embedding and plain causal attention.
#pragma once

#include "nn/attention.h"
#include "nn/rope.h"

namespace dmc::nn {

class DenseAttention : public AttentionStrategy {
 public:
  // Sequences of up to `positions` tokens, rotated with `frequencies` (nn::Rope), on `device`.
  DenseAttention(int64_t positions, std::span<const double> frequencies,
                 at::Device device = at::kCPU)
      : rope_(positions, frequencies, device) {}
  at::Tensor attend(int64_t layer, const AttentionInput& in) override;

 private:
  Rope rope_;
};

}  // namespace dmc::nn

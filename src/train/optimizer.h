// AdamW with decoupled weight decay (Loshchilov & Hutter 2019), through LibTorch's fused step.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "train/options.h"

namespace dmc::train {

class AdamW {
 public:
  // Of those parameters that require gradients. Matrices decay, vectors (norm weights) do not.
  AdamW(const std::map<std::string, at::Tensor>& parameters, const TrainOptions& options);

  // One update from the parameters' gradients, which are clipped to a global norm of options.clip
  // first and cleared afterwards. Returns the norm before clipping, [] in f64 on the parameters'
  // device, without waiting for it; if it is not finite, nothing is updated.
  at::Tensor step(double learning_rate);

  // Both moments and the step count, by name, sharing memory with the optimizer.
  std::map<std::string, at::Tensor> state() const;

 private:
  struct Group {
    double weight_decay = 0.0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first_moments, second_moments, steps;
    std::vector<at::Tensor> gradients;  // during a step
  };
  Group decayed_, plain_;
  double beta1_, beta2_, epsilon_, clip_;
};

}  // namespace dmc::train

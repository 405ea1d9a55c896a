// AdamW with decoupled weight decay (Loshchilov & Hutter 2019), through LibTorch's fused step. Of
// the ranks of a group, each has the moments of a share of the parameters, and updates it for all
// (stage 1 of ZeRO, Rajbhandari et al. 2020).
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "dist/group.h"
#include "train/options.h"
#include "train/shares.h"

namespace dmc::train {

class AdamW {
 public:
  // Of those parameters that require gradients, which are the same on all ranks. Matrices decay,
  // vectors (norm weights) do not. `group` must outlive this.
  AdamW(const std::map<std::string, at::Tensor>& parameters, const TrainOptions& options,
        dist::Group& group = dist::alone());

  // One update from the mean of all ranks' gradients, which are clipped to a global norm of
  // options.clip first and cleared afterwards. A collective. Returns the norm before clipping, []
  // in f64 on the parameters' device, without waiting for it; if it is not finite, nothing is
  // updated.
  at::Tensor step(double learning_rate);

  // Both moments of this rank's parameters and the step count of all, by name, sharing memory with
  // the optimizer.
  std::map<std::string, at::Tensor> state() const;
  // The same of all ranks' parameters, on the CPU, for the first rank; the others get nothing. A
  // collective.
  std::map<std::string, at::Tensor> whole_state() const;

 private:
  struct Decay {  // parameters of one weight decay that are this rank's to update
    double weight_decay = 0.0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first_moments, second_moments;
  };
  at::Tensor norm_of_mean_gradient() const;
  void update(Decay& decay, double learning_rate, const at::Tensor& scale, const at::Tensor& skip);

  dist::Group& group_;
  const std::vector<OwnedParameter> parameters_;
  const std::vector<Bucket> buckets_;
  Decay decayed_, plain_;
  at::Tensor steps_;  // [] f32, done so far
  double beta1_, beta2_, epsilon_, clip_;
};

}  // namespace dmc::train

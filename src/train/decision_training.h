// What every method's training shares (paper, sections 3.2 and 3.3; docs/algorithm.md): soft
// decisions with noise, the ratio they are wanted to reach, and the loss that asks for it.
#pragma once

#include <vector>

#include "nn/rope.h"
#include "train/decision_source.h"
#include "train/stage.h"

namespace dmc::train {

class DecisionTraining : public TrainAttention {
 public:
  // `ramp`: the wanted ratio rises from 1 to the target; else it is the target throughout.
  DecisionTraining(const model::ModelConfig& config, const TrainOptions& options, bool ramp);

  void begin_step(const StepInfo& info) override;
  at::Tensor extra_loss() override;
  at::Tensor decided_fraction() const override;
  at::Tensor served_fraction() const override;
  double wanted_cr() const override { return wanted_cr_; }
  bool adapts_offset() const override { return !ramp_; }
  std::vector<std::vector<double>> cr_by_head() const override;

 protected:
  // The logits [B, T, K] of a layer's decisions, whose sigmoids are alpha. Counts them.
  at::Tensor decide(int64_t layer, const nn::AttentionInput& in);
  // The logits [B, T, K] of how much each token weighs in its slot.
  at::Tensor importance(const nn::AttentionInput& in) const;
  // q or k as attention sees it: without a decision channel.
  at::Tensor visible(const at::Tensor& x) const { return source_.visible(x); }
  at::Tensor rotate(const at::Tensor& x) const { return rope_.apply(x); }
  int64_t window() const { return options_.window; }
  int64_t delay() const { return options_.delay; }

 private:
  at::Tensor counted(const at::Tensor& x_BTK) const;
  void count(const at::Tensor& logit_BTK, const at::Tensor& bare_BTK);
  at::Tensor logistic_noise(int64_t layer, at::IntArrayRef shape_BTK) const;
  at::Tensor fractions_of_batch();

  const RetrofitOptions options_;
  const bool ramp_;
  const int64_t delay_;  // tokens for which one that was decided against is still kept
  const double may_go_;  // the share of a sequence that is not among its last `delay_` tokens
  const at::Device device_;
  const DecisionSource source_;
  nn::Rope rope_;
  StepInfo info_;
  double noise_ = 1.0;
  double wanted_cr_ = 1.0;
  // [K] for each layer; of these rows. Differentiable with noise, not as they are served.
  std::vector<at::Tensor> decided_fractions_, served_fractions_;
  at::Tensor decided_LK_, served_LK_;  // [layers, K], of all ranks
};

}  // namespace dmc::train

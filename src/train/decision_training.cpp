#include "train/decision_training.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>

#include <algorithm>

#include "base/rng.h"
#include "model/rope_frequencies.h"
#include "nn/placement.h"
#include "nn/weights.h"
#include "policy/policy.h"
#include "policy/schedule.h"
#include "train/placement.h"

namespace dmc::train {
namespace {

// Rounded to 0 or 1 going forward, the identity going backward (straight-through).
at::Tensor straight_through_round(const at::Tensor& x) { return x + (x.round() - x).detach(); }

}  // namespace

DecisionTraining::DecisionTraining(const model::ModelConfig& config, const TrainOptions& options,
                                   bool ramp)
    : options_(options.retrofit),
      ramp_(ramp),
      delay_(options.retrofit.delay),
      may_go_(1.0 - static_cast<double>(delay_) / static_cast<double>(options.length)),
      device_(device_of(options)),
      source_(options.retrofit.decisions, config, device_),
      rope_(options.length, model::rope_frequencies(config), device_) {}

void DecisionTraining::begin_step(const StepInfo& info) {
  info_ = info;
  decided_fractions_.clear();
  served_fractions_.clear();
  // Decisions are taken without noise when the model is used, so it must go before the end: a
  // model that was trained with it throughout loses twice as much when it is used.
  noise_ = ramp_ ? 1.0 : policy::fade(info.step, info.steps);
  wanted_cr_ =
      ramp_ ? policy::ramped_cr(info.step, info.steps, options_.target_cr) : options_.target_cr;
}

// Difference of two Gumbel variables, which is a logistic one. Drawn on the CPU and for the whole
// batch, so that a run has the same noise on every device, on any number of ranks and in any number
// of parts.
at::Tensor DecisionTraining::logistic_noise(int64_t layer, at::IntArrayRef shape_BTK) const {
  at::Generator generator = nn::generator(random_bits(
      info_.seed, static_cast<uint64_t>(info_.global_step), static_cast<uint64_t>(layer)));
  const int64_t rows = shape_BTK[0];
  const int64_t first = rows * (info_.group->rank() * info_.parts + info_.part);
  const at::Tensor all =
      at::rand({rows * info_.group->size() * info_.parts, shape_BTK[1], shape_BTK[2]}, generator);
  // Open interval: a logit of infinity would make a NaN gradient.
  const at::Tensor u = all.narrow(0, first, rows).clamp(1e-7, 1.0 - 1e-7);
  return u.log() - (1.0 - u).log();
}

at::Tensor DecisionTraining::decide(int64_t layer, const nn::AttentionInput& in) {
  const at::Tensor noise = noise_ * logistic_noise(layer, in.k_BTKd.sizes().slice(0, 3));
  const at::Tensor bare = source_.decision(in) * options_.decision_scale - info_.decision_offset;
  const at::Tensor logit = (bare + nn::copied_to(device_, noise)) / options_.temperature;
  count(logit, bare);
  return logit;
}

at::Tensor DecisionTraining::importance(const nn::AttentionInput& in) const {
  return source_.importance(in) * options_.decision_scale +
         options_.importance_offset.value_or(options_.offset);
}

// Of what stands for tokens, that which is about tokens the cache has lost when the sequence ends.
// A sequence's first token decides about nothing: it opens a slot, and no token stands before it.
// The last ones are about tokens that are still kept.
at::Tensor DecisionTraining::counted(const at::Tensor& x_BTK) const {
  return x_BTK.narrow(1, 1, std::max<int64_t>(x_BTK.size(1) - 1 - delay_, 0));
}

void DecisionTraining::count(const at::Tensor& logit_BTK, const at::Tensor& bare_BTK) {
  const double tokens = static_cast<double>(logit_BTK.size(0) * logit_BTK.size(1));
  const auto fraction = [&](const at::Tensor& decided_BTK) {
    return decided_BTK.sum(at::IntArrayRef({0, 1})) / tokens;
  };
  decided_fractions_.push_back(fraction(straight_through_round(counted(logit_BTK).sigmoid())));
  served_fractions_.push_back(
      fraction((counted(bare_BTK.detach()) > 0).to(bare_BTK.scalar_type())));
}

// [layers, K]. The losses of ranks are averaged, and so are their gradients: the value is the whole
// batch's, the gradient that of this rank's rows.
at::Tensor DecisionTraining::fractions_of_batch() {
  const at::Tensor here_LK = at::stack(decided_fractions_);
  at::Tensor both = at::stack({here_LK.detach(), at::stack(served_fractions_)});
  const int ranks = info_.group->size();
  if (ranks > 1) {
    info_.group->sum(both);
    both /= ranks;
  }
  decided_LK_ = both[0];
  served_LK_ = both[1];
  return decided_LK_ + (here_LK - here_LK.detach());
}

// max(0, wanted fraction - fraction of tokens that merge or go), paper equation 8. A head counts up
// to the cap only: without it the loss is cheapest to meet by a few heads that merge everything,
// and a head that went there has no gradient to come back by.
at::Tensor DecisionTraining::extra_loss() {
  const double cap = policy::merge_fraction(options_.head_cr_cap) * may_go_;
  const at::Tensor counted = fractions_of_batch().clamp_max(cap).mean();
  return at::relu(policy::merge_fraction(wanted_cr_) - counted) * info_.compression_weight;
}

at::Tensor DecisionTraining::decided_fraction() const { return decided_LK_.mean(); }

at::Tensor DecisionTraining::served_fraction() const { return served_LK_.mean(); }

std::vector<std::vector<double>> DecisionTraining::cr_by_head() const {
  std::vector<std::vector<double>> result;
  if (!served_LK_.defined()) return result;
  const at::Tensor cr_LK = 1.0 / (1.0 - served_LK_.to(at::kCPU, at::kDouble));
  const double* next = cr_LK.const_data_ptr<double>();
  for (int64_t layer = 0; layer < cr_LK.size(0); ++layer, next += cr_LK.size(1)) {
    result.emplace_back(next, next + cr_LK.size(1));
  }
  return result;
}

}  // namespace dmc::train

#include "train/decision_training.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/log.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/relu.h>

#include "base/rng.h"
#include "families/rope_frequencies.h"
#include "nn/placement.h"
#include "nn/weights.h"
#include "policy/schedule.h"
#include "train/placement.h"

namespace dmc::train {
namespace {

// Difference of two Gumbel variables, which is a logistic one. Drawn on the CPU, so that a run has
// the same noise on every device.
at::Tensor logistic_noise(at::IntArrayRef shape, uint64_t seed) {
  at::Generator generator = nn::generator(seed);
  // Open interval: a logit of infinity would make a NaN gradient.
  const at::Tensor u = at::rand(shape, generator).clamp(1e-7, 1.0 - 1e-7);
  return u.log() - (1.0 - u).log();
}

// Rounded to 0 or 1 going forward, the identity going backward (straight-through).
at::Tensor straight_through_round(const at::Tensor& x) { return x + (x.round() - x).detach(); }

}  // namespace

DecisionTraining::DecisionTraining(const io::ModelConfig& config, const TrainOptions& options,
                                   bool ramp)
    : options_(options.retrofit),
      ramp_(ramp),
      device_(device_of(options)),
      source_(options.retrofit.decisions, config, device_),
      rope_(options.length, families::rope_frequencies(config), device_) {}

void DecisionTraining::begin_step(const StepInfo& info) {
  info_ = info;
  decided_fractions_.clear();
  // Decisions are taken without noise when the model is used, so it must go before the end: a
  // model that was trained with it throughout loses twice as much when it is used.
  noise_ = ramp_ ? 1.0 : policy::fade(info.step, info.steps);
  wanted_cr_ =
      ramp_ ? policy::ramped_cr(info.step, info.steps, options_.target_cr) : options_.target_cr;
}

at::Tensor DecisionTraining::decide(int64_t layer, const nn::AttentionInput& in) {
  const uint64_t seed = random_bits(info_.seed, static_cast<uint64_t>(info_.global_step),
                                    static_cast<uint64_t>(layer));
  const at::Tensor noise = noise_ * logistic_noise(in.k_BTKd.sizes().slice(0, 3), seed);
  const at::Tensor logit = (source_.decision(in) * options_.decision_scale - options_.offset +
                            nn::copied_to(device_, noise)) /
                           options_.temperature;
  count(logit);
  return logit;
}

at::Tensor DecisionTraining::importance(const nn::AttentionInput& in) const {
  return source_.importance(in) * options_.decision_scale + options_.offset;
}

// A sequence's first token decides about nothing: it opens a slot, and no token stands before it.
void DecisionTraining::count(const at::Tensor& logit_BTK) {
  const at::Tensor alpha = logit_BTK.narrow(1, 1, logit_BTK.size(1) - 1).sigmoid();
  const double tokens = static_cast<double>(logit_BTK.size(0) * logit_BTK.size(1));
  const at::Tensor decided = straight_through_round(alpha).sum(at::IntArrayRef({0, 1}));
  decided_fractions_.push_back(decided / tokens);
}

// max(0, wanted fraction - fraction of tokens that merge or go), paper equation 8. A head counts up
// to the cap only: without it the loss is cheapest to meet by a few heads that merge everything,
// and a head that went there has no gradient to come back by.
at::Tensor DecisionTraining::extra_loss() {
  const double cap = policy::merge_fraction(options_.head_cr_cap);
  const at::Tensor counted = at::cat(decided_fractions_).clamp_max(cap).mean();
  return at::relu(policy::merge_fraction(wanted_cr_) - counted) * info_.compression_weight;
}

at::Tensor DecisionTraining::decided_fraction() const {
  return at::cat(decided_fractions_).detach().mean();
}

std::vector<std::vector<double>> DecisionTraining::cr_by_head() const {
  std::vector<std::vector<double>> result;
  for (const at::Tensor& fractions_K : decided_fractions_) {
    const at::Tensor cr =
        (1.0 / (1.0 - fractions_K.detach().to(at::kCPU, at::kDouble))).contiguous();
    result.emplace_back(cr.const_data_ptr<double>(), cr.const_data_ptr<double>() + cr.numel());
  }
  return result;
}

}  // namespace dmc::train

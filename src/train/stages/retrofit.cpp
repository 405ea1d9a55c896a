// Stages 2 and 3: the model learns to take decisions while the wanted compression ratio rises
// (retrofit) and then stays (finetune). Paper, sections 3.2 and 3.3; docs/algorithm.md.
#include <ATen/ops/cat.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/relu.h>

#include "base/rng.h"
#include "families/rope_frequencies.h"
#include "nn/rope.h"
#include "nn/weights.h"
#include "ops/attention.h"
#include "ops/pool.h"
#include "policy/schedule.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

// Difference of two Gumbel variables, which is a logistic one.
at::Tensor logistic_noise(at::IntArrayRef shape, uint64_t seed) {
  at::Generator generator = nn::generator(seed);
  // Open interval: a logit of infinity would make a NaN gradient.
  const at::Tensor u = at::rand(shape, generator).clamp(1e-7, 1.0 - 1e-7);
  return u.log() - (1.0 - u).log();
}

// Rounded to 0 or 1 going forward, the identity going backward (straight-through).
at::Tensor straight_through_round(const at::Tensor& x) { return x + (x.round() - x).detach(); }

class DmcTraining : public TrainAttention {
 public:
  DmcTraining(const io::ModelConfig& config, const TrainOptions& options, bool ramp)
      : config_(config),
        options_(options.retrofit),
        ramp_(ramp),
        rope_(options.length, families::rope_frequencies(config)),
        channels_(at::ones({config.head_dim})) {
    channels_[-1].fill_(0.0);  // attention never sees the decision channel
  }

  void begin_step(const StepInfo& info) override {
    info_ = info;
    merged_fractions_.clear();
    // Decisions are taken without noise when the model is used, so it must go before the end: a
    // model that was trained with it throughout loses twice as much when it is used.
    noise_ = ramp_ ? 1.0 : policy::fade(info.step, info.steps);
    wanted_cr_ =
        ramp_ ? policy::ramped_cr(info.step, info.steps, options_.target_cr) : options_.target_cr;
  }

  at::Tensor attend(int64_t layer, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                    const at::Tensor& v_BTKd) override {
    const double scale = options_.decision_scale, offset = options_.offset;
    const at::Tensor noise =
        noise_ * logistic_noise(k_BTKd.sizes().slice(0, 3),
                                random_bits(info_.seed, static_cast<uint64_t>(info_.global_step),
                                            static_cast<uint64_t>(layer)));
    const at::Tensor merge_logit =
        (k_BTKd.select(3, -1) * scale - offset + noise) / options_.temperature;
    const at::Tensor importance_logit = query_channel_mean(q_BTHd) * scale + offset;
    count_merges(merge_logit);

    const auto [k_pooled, v_pooled] =
        ops::pool(k_BTKd * channels_, v_BTKd, merge_logit, importance_logit, options_.window);
    return ops::dmc_attention(rope_.apply(q_BTHd * channels_), rope_.apply(k_pooled), v_pooled,
                              merge_logit);
  }

  // max(0, wanted fraction of merges - fraction of merges), paper equation 8. A head counts up to
  // the cap only: without it the loss is cheapest to meet by a few heads that merge everything, and
  // a head that went there has no gradient to come back by.
  at::Tensor extra_loss() override {
    const double cap = policy::merge_fraction(options_.head_cr_cap);
    const at::Tensor counted = at::cat(merged_fractions_).clamp_max(cap).mean();
    return at::relu(policy::merge_fraction(wanted_cr_) - counted) * info_.compression_weight;
  }

  double measured_cr() const override {
    return 1.0 / (1.0 - at::cat(merged_fractions_).mean().item<double>());
  }
  double wanted_cr() const override { return wanted_cr_; }
  std::vector<std::vector<double>> cr_by_head() const override {
    std::vector<std::vector<double>> result;
    for (const at::Tensor& fractions_K : merged_fractions_) {
      const at::Tensor cr = (1.0 / (1.0 - fractions_K.detach().to(at::kDouble))).contiguous();
      result.emplace_back(cr.const_data_ptr<double>(), cr.const_data_ptr<double>() + cr.numel());
    }
    return result;
  }

 private:
  at::Tensor query_channel_mean(const at::Tensor& q_BTHd) const {
    return q_BTHd.select(3, -1)
        .unflatten(2, at::IntArrayRef{config_.num_kv_heads, config_.group_size()})
        .mean(-1);
  }

  // A sequence's first token opens a slot whatever its logit, so it counts as no merge.
  void count_merges(const at::Tensor& merge_logit_BTK) {
    const at::Tensor alpha = merge_logit_BTK.narrow(1, 1, merge_logit_BTK.size(1) - 1).sigmoid();
    const double tokens = static_cast<double>(merge_logit_BTK.size(0) * merge_logit_BTK.size(1));
    merged_fractions_.push_back(straight_through_round(alpha).sum({0, 1}) / tokens);
  }

  const io::ModelConfig& config_;
  const RetrofitOptions options_;
  const bool ramp_;
  nn::Rope rope_;
  at::Tensor channels_;  // [d]: 1 but for the decision channel
  StepInfo info_;
  double noise_ = 1.0;
  double wanted_cr_ = 1.0;
  std::vector<at::Tensor> merged_fractions_;  // [K] for each layer, differentiable
};

}  // namespace

std::unique_ptr<TrainAttention> retrofit_stage(const io::ModelConfig& config,
                                               const TrainOptions& options) {
  return std::make_unique<DmcTraining>(config, options, /*ramp=*/true);
}

std::unique_ptr<TrainAttention> finetune_stage(const io::ModelConfig& config,
                                               const TrainOptions& options) {
  return std::make_unique<DmcTraining>(config, options, /*ramp=*/false);
}

}  // namespace dmc::train

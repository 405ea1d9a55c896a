// Stage 1: the decision channel fades out of attention, so that giving it up later costs nothing
// (paper, section 3.2 "training stages").
#include <ATen/ops/ones.h>

#include "model/rope_frequencies.h"
#include "nn/decision_channel.h"
#include "nn/dense_attention.h"
#include "policy/schedule.h"
#include "train/placement.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

class ZeroOut : public TrainAttention {
 public:
  ZeroOut(const model::ModelConfig& config, const TrainOptions& options)
      : dense_(options.length, model::rope_frequencies(config), device_of(options)),
        channels_(at::ones({config.head_dim}, device_of(options))) {}

  void begin_step(const StepInfo& info) override {
    channels_[-1].fill_(policy::fade(info.step, info.steps));
  }
  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    const at::Tensor channels = channels_.to(in.q_BTHd.scalar_type());
    return dense_.attend(layer, {in.q_BTHd * channels, in.k_BTKd * channels, in.v_BTKd, {}});
  }

 private:
  nn::DenseAttention dense_;
  at::Tensor channels_;  // [d]: 1 but for the decision channel
};

}  // namespace

std::unique_ptr<TrainAttention> zero_out_stage(const model::ModelConfig& config,
                                               const TrainOptions& options) {
  return std::make_unique<ZeroOut>(config, options);
}

void finish_zero_out(nn::Decoder& model, const TrainOptions&) { nn::clear_decision_channel(model); }

}  // namespace dmc::train

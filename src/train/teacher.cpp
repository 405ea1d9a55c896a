#include "train/teacher.h"

#include <ATen/core/grad_mode.h>

namespace dmc::train {

// A model that was retrofitted already may have a decision channel, which attention must not see:
// that is the end of the zero-out stage.
Teacher::Teacher(nn::Decoder start, const TrainOptions& options)
    : model_(std::move(start)),
      attention_(find_stage(model_.config().has_decision_channel() ? "zero-out" : "dense")
                     ->attention(model_.config(), options)) {
  attention_->begin_step({.step = 1, .steps = 1});
}

at::Tensor Teacher::hidden(const at::Tensor& tokens_BT) const {
  const at::NoGradGuard no_grad;
  return model_.hidden(tokens_BT, *attention_);
}

}  // namespace dmc::train

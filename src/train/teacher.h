// The model that a run started from, uncompressed: what distillation holds the one in training to.
#pragma once

#include <memory>

#include "nn/decoder.h"
#include "train/stage.h"

namespace dmc::train {

class Teacher {
 public:
  // `start`: whose parameters must not change while this exists.
  Teacher(nn::Decoder start, const TrainOptions& options);

  const nn::Decoder& model() const { return model_; }
  at::Tensor hidden(const at::Tensor& tokens_BT) const;  // [B, T, hidden], without gradients

 private:
  nn::Decoder model_;
  std::unique_ptr<TrainAttention> attention_;
};

}  // namespace dmc::train

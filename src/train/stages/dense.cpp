// Plain language modelling: pre-training, or the uncompressed control of a retrofit.
#include "model/rope_frequencies.h"
#include "nn/dense_attention.h"
#include "train/placement.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

class DenseTraining : public TrainAttention {
 public:
  DenseTraining(const model::ModelConfig& config, const TrainOptions& options)
      : dense_(options.length, model::rope_frequencies(config), device_of(options)) {}
  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    return dense_.attend(layer, in);
  }

 private:
  nn::DenseAttention dense_;
};

}  // namespace

std::unique_ptr<TrainAttention> dense_stage(const model::ModelConfig& config,
                                            const TrainOptions& options) {
  return std::make_unique<DenseTraining>(config, options);
}

}  // namespace dmc::train

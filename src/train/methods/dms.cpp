// Dynamic Memory Sparsification: a token decides that the one before it goes, which is seen until
// it leaves the window. Decisions stay soft in attention and are rounded in the compression loss
// alone.
#include "ops/attention.h"
#include "train/decision_training.h"
#include "train/method.h"

namespace dmc::train {
namespace {

class DmsTraining : public DecisionTraining {
 public:
  using DecisionTraining::DecisionTraining;

  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    return ops::decision_attention(rotate(visible(in.q_BTHd)), rotate(visible(in.k_BTKd)),
                                   in.v_BTKd, decide(layer, in), /*delay=*/window());
  }
};

}  // namespace

std::unique_ptr<TrainAttention> dms_attention(const model::ModelConfig& config,
                                              const TrainOptions& options, bool ramp) {
  return std::make_unique<DmsTraining>(config, options, ramp);
}

}  // namespace dmc::train

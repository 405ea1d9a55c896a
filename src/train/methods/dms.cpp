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

  at::Tensor attend(int64_t layer, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                    const at::Tensor& v_BTKd) override {
    return ops::decision_attention(rotate(visible(q_BTHd)), rotate(visible(k_BTKd)), v_BTKd,
                                   decide(layer, k_BTKd), /*delay=*/window());
  }
};

}  // namespace

std::unique_ptr<TrainAttention> dms_attention(const io::ModelConfig& config,
                                              const TrainOptions& options, bool ramp) {
  return std::make_unique<DmsTraining>(config, options, ramp);
}

}  // namespace dmc::train

// Dynamic Memory Compression: a token merges into the newest slot, which is the weighted mean of
// its last tokens.
#include "ops/attention.h"
#include "ops/pool.h"
#include "train/decision_training.h"
#include "train/method.h"

namespace dmc::train {
namespace {

class DmcTraining : public DecisionTraining {
 public:
  using DecisionTraining::DecisionTraining;

  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    const at::Tensor merge_logit = decide(layer, in);
    const auto [k_pooled, v_pooled] =
        ops::pool(visible(in.k_BTKd), in.v_BTKd, merge_logit, importance(in), window());
    return ops::decision_attention(rotate(visible(in.q_BTHd)), rotate(k_pooled), v_pooled,
                                   merge_logit,
                                   /*delay=*/0);
  }
};

}  // namespace

std::unique_ptr<TrainAttention> dmc_attention(const model::ModelConfig& config,
                                              const TrainOptions& options, bool ramp) {
  return std::make_unique<DmcTraining>(config, options, ramp);
}

}  // namespace dmc::train

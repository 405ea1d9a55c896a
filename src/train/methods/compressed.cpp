// The methods that our own policies serve. A token stays as it is for the delay; from then on a
// query sees it as its slot's newest token, for as long as the next one does not hide it. What the
// slot holds of the tokens before is what the policy carries (policy::Carry): with a delay of 0 and
// all of it this is Dynamic Memory Compression, with nothing carried Dynamic Memory Sparsification.
// Decisions stay soft in attention and are rounded in the compression loss alone.
#include "base/error.h"
#include "ops/attention.h"
#include "ops/pool.h"
#include "policy/policy.h"
#include "train/decision_training.h"
#include "train/method.h"

namespace dmc::train {
namespace {

class CompressedTraining : public DecisionTraining {
 public:
  CompressedTraining(const model::ModelConfig& config, const TrainOptions& options, bool ramp)
      : DecisionTraining(config, options, ramp),
        carry_(policy::find_policy(options.retrofit.method)->carry) {}

  at::Tensor attend(int64_t layer, const nn::AttentionInput& in) override {
    const at::Tensor logit = decide(layer, in);
    const at::Tensor q = rotate(visible(in.q_BTHd)), k = visible(in.k_BTKd);
    if (carry_ == policy::Carry::kNothing) {
      return ops::decision_attention(q, rotate(k), in.v_BTKd, logit, delay());
    }
    const auto [k_pooled, v_pooled] = ops::pool(k, in.v_BTKd, logit, importance(in), window(),
                                                carry_ == policy::Carry::kBesideNewest);
    if (delay() == 0) {
      return ops::decision_attention(q, rotate(k_pooled), v_pooled, logit, /*delay=*/0);
    }
    return ops::delayed_attention(q, {rotate(k), rotate(k_pooled)}, {in.v_BTKd, v_pooled}, logit,
                                  delay());
  }

 private:
  const policy::Carry carry_;
};

}  // namespace

std::unique_ptr<TrainAttention> compressed_attention(const model::ModelConfig& config,
                                                     const TrainOptions& options, bool ramp) {
  return std::make_unique<CompressedTraining>(config, options, ramp);
}

}  // namespace dmc::train

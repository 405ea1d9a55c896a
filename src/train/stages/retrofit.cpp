// Stages 2 and 3: the model learns to take decisions while the wanted compression ratio rises
// (retrofit) and then stays (finetune). What a decision does is the method's.
#include "base/error.h"
#include "train/method.h"

namespace dmc::train {
namespace {

std::unique_ptr<TrainAttention> method_attention(const model::ModelConfig& config,
                                                 const TrainOptions& options, bool ramp) {
  const Method* const method = find_method(options.retrofit.method);
  DMC_CHECK(method != nullptr);
  return method->attention(config, options, ramp);
}

}  // namespace

std::unique_ptr<TrainAttention> retrofit_stage(const model::ModelConfig& config,
                                               const TrainOptions& options) {
  return method_attention(config, options, /*ramp=*/true);
}

std::unique_ptr<TrainAttention> finetune_stage(const model::ModelConfig& config,
                                               const TrainOptions& options) {
  return method_attention(config, options, /*ramp=*/false);
}

}  // namespace dmc::train

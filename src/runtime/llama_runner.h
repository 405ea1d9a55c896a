// The model on LibTorch with the compressed cache: what the engine, scoring and measuring run on.
#pragma once

#include <memory>

#include "engine/model_runner.h"
#include "models/llama.h"
#include "runtime/cached_attention.h"

namespace dmc::runtime {

struct RunnerOptions {
  std::string policy;    // name in the policy table; empty: dmc if the model has it, else dense
  int64_t chunk = 1024;  // tokens of a prompt taken in at once
  int64_t max_positions = 0;  // 0: the model's own context
};

class LlamaRunner : public engine::ModelRunner {
 public:
  // Shares `model`. Error(kUsage) for an unknown policy, or one the model was not trained for.
  LlamaRunner(std::shared_ptr<const models::Llama> model, const RunnerOptions& options);

  int64_t vocab_size() const override { return model_->config().vocab_size; }
  int64_t max_positions() const override { return rope_.positions; }
  engine::SequenceId add_sequence() override { return cache_.add_sequence(); }
  engine::SequenceId fork(engine::SequenceId parent) override { return cache_.fork(parent); }
  void release(engine::SequenceId sequence) override { cache_.release(sequence); }
  std::vector<float> prefill(engine::SequenceId sequence, std::span<const int32_t> tokens) override;
  std::vector<float> decode(std::span<const engine::SequenceId> sequences,
                            std::span<const int32_t> tokens) override;
  std::vector<float> prefill_logits(engine::SequenceId sequence,
                                    std::span<const int32_t> tokens) override;
  double compression_ratio(engine::SequenceId sequence) const override;

  // One chunk of a prompt: the last hidden states of its tokens, [tokens, hidden].
  at::Tensor prefill_hidden(engine::SequenceId sequence, std::span<const int32_t> tokens);

  const models::Llama& model() const { return *model_; }
  const policy::Policy& policy() const { return policy_; }
  const cache::KvCache& cache() const { return cache_; }

 private:
  std::shared_ptr<const models::Llama> model_;
  const policy::Policy& policy_;
  int64_t chunk_;
  kernels::RopeTable rope_;
  cache::KvCache cache_;
  CachedAttention attention_;
};

}  // namespace dmc::runtime

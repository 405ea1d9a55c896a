// The model with its compressed cache: what the engine, scoring and measuring run on. No LibTorch.
#pragma once

#include <memory>
#include <string>

#include "kernels/rope.h"
#include "runtime/decoder.h"
#include "runtime/policy_choice.h"
#include "runtime/runner.h"

namespace dmc::runtime {

struct RunnerOptions {
  PolicyOptions compression;
  int64_t chunk = 1024;       // tokens of a prompt taken in at once
  int64_t max_positions = 0;  // 0: the model's own context
  DType kv = DType::kF32;     // of closed slots, as kernels::PageFormat's
};

class DecoderRunner : public Runner {
 public:
  // Shares `model`. Error(kInvalidArgument) as choose_policy(), or for a context the model does not
  // have.
  DecoderRunner(std::shared_ptr<const Model> model, const RunnerOptions& options);

  int64_t max_positions() const override { return max_positions_; }
  engine::SequenceId add_sequence() override { return cache_.add_sequence(); }
  engine::SequenceId fork(engine::SequenceId parent) override { return cache_.fork(parent); }
  void release(engine::SequenceId sequence) override { cache_.release(sequence); }
  std::vector<float> prefill(engine::SequenceId sequence, std::span<const int32_t> tokens) override;
  std::vector<float> decode(std::span<const engine::SequenceId> sequences,
                            std::span<const int32_t> tokens) override;
  std::vector<float> prefill_logits(engine::SequenceId sequence,
                                    std::span<const int32_t> tokens) override;

  const Model& model() const override { return *model_; }
  const policy::Policy& policy() const override { return choice_.policy; }
  int64_t length(engine::SequenceId sequence) const override { return cache_.length(sequence); }
  std::vector<int64_t> slots(engine::SequenceId sequence) const override;
  int64_t cache_bytes() const override { return cache_.bytes().total(); }
  const cache::KvCache& cache() const { return cache_; }

 private:
  // One chunk of a prompt: the last hidden states of its tokens.
  std::span<const float> prefill_hidden(engine::SequenceId sequence,
                                        std::span<const int32_t> tokens);

  std::shared_ptr<const Model> model_;
  PolicyChoice choice_;
  int64_t chunk_, max_positions_;
  std::unique_ptr<const kernels::RopeTable> rope_;  // null: the family has none
  cache::KvCache cache_;
  Decoder decoder_;
};

}  // namespace dmc::runtime

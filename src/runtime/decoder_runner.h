// The model with its compressed cache: what the engine, scoring and measuring run on. No LibTorch.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/group.h"
#include "kernels/rope.h"
#include "runtime/cpu_backend.h"
#include "runtime/policy_choice.h"
#include "runtime/runner.h"

namespace dmc::runtime {

struct RunnerOptions {
  PolicyOptions compression;
  int64_t chunk = 1024;       // tokens of a prompt taken in at once
  int64_t max_positions = 0;  // 0: the model's own context
  DType kv = DType::kF32;     // of closed slots, as kernels::PageFormat's
  // Pages that the cache may have, of 16 slots of a KV head each; 0: on the CPU it grows as needed,
  // on a device as DeviceRoom says.
  int64_t max_pages = 0;
  // Asked in every layer that takes in a part of a prompt. Where it says yes, step() ends with
  // Error(kCancelled), and that step's sequences can only be released. None: never; nor on a
  // device.
  std::function<bool()> cancelled;
};

class DecoderRunner : public Runner {
 public:
  // Shares `model`. Error(kInvalidArgument) as choose_policy(), or for a context the model does not
  // have. Of a shard it is what one rank of `group` runs, which must outlive it: see
  // TensorParallelRunner.
  DecoderRunner(std::shared_ptr<const Model> model, const RunnerOptions& options,
                comm::Group& group = comm::alone());

  int64_t max_positions() const override { return max_positions_; }
  engine::SequenceId add_sequence() override { return cache_.add_sequence(); }
  engine::SequenceId fork(engine::SequenceId parent) override { return cache_.fork(parent); }
  void release(engine::SequenceId sequence) override {
    cache_.release(sequence);
    decoder_.forget(sequence);
  }
  bool can_hold_ratios() const override { return true; }
  void hold_ratio(engine::SequenceId sequence, double cr) override {
    decoder_.hold_ratio(sequence, cr);
  }
  int64_t free_pages() const override { return cache_.free_pages(); }
  int64_t total_pages() const override { return cache_.total_pages(); }
  int64_t most_pages(engine::SequenceId sequence, int64_t tokens, int64_t at_once) const override {
    return cache_.pages_for(sequence, tokens, at_once);
  }
  int64_t pages_of(engine::SequenceId sequence) const override { return cache_.pages_of(sequence); }

  std::optional<std::string> save(engine::SequenceId sequence) const override;
  engine::SequenceId restore(std::string_view bytes) override;

  const Model& model() const override { return *model_; }
  const policy::Policy& policy() const override { return choice_.policy; }
  int64_t length(engine::SequenceId sequence) const override { return cache_.length(sequence); }
  // Of a shard: of its KV heads.
  std::vector<int64_t> slots(engine::SequenceId sequence) const override;
  int64_t cache_bytes() const override { return cache_.bytes().total(); }
  const cache::KvCache& cache() const { return cache_; }

 private:
  friend class TensorParallelRunner;  // which does a step's passes on all ranks

  PassLimits pass_limits() const override;
  bool in_prompt(engine::SequenceId sequence) const override { return cache_.in_prompt(sequence); }
  // `logits` may be null, if another rank takes them.
  void run(const Pass& pass, float* logits) override;
  void advance(engine::SequenceId sequence, int64_t tokens) override {
    cache_.advance(sequence, tokens);
  }
  void end_prompt(engine::SequenceId sequence) override { cache_.end_prompt(sequence); }

  std::shared_ptr<const Model> model_;
  PolicyChoice choice_;
  int64_t chunk_, max_positions_;
  std::unique_ptr<const kernels::RopeTable> rope_;  // null: the family has none
  cache::KvCache cache_;
  CpuBackend decoder_;
  std::vector<float> wanted_, logits_;  // of rows that do not lie together
};

}  // namespace dmc::runtime

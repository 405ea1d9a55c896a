// What runs a model with a compressed cache, wherever it does: the engine's ModelRunner, and what
// commands say about the cache.
#pragma once

#include "base/error.h"
#include "engine/model_runner.h"
#include "policy/policy.h"
#include "runtime/step_plan.h"
#include "runtime/weights.h"

namespace dmc::runtime {

class Runner : public engine::ModelRunner {
 public:
  engine::StepResult step(std::span<const engine::StepItem> items) final;

  virtual const Model& model() const = 0;
  virtual const policy::Policy& policy() const = 0;
  // Of every (layer, KV head), [layers * kv_heads]; the open one counts.
  virtual std::vector<int64_t> slots(engine::SequenceId sequence) const = 0;
  virtual int64_t cache_bytes() const = 0;  // of all sequences

  // With a learned policy and a ratio that is held from the start: another one for this sequence,
  // from the next step on. A fork begins at the first. Only where can_hold_ratios().
  virtual bool can_hold_ratios() const { return false; }
  virtual void hold_ratio(engine::SequenceId, double /*cr*/) { DMC_CHECK(can_hold_ratios()); }

  int64_t vocab_size() const override { return model().config.vocab_size; }
  double compression_ratio(engine::SequenceId sequence) const override;

 protected:
  virtual PassLimits pass_limits() const = 0;
  // With a policy that looks at a prompt's last tokens: whether one is begun and not ended.
  virtual bool in_prompt(engine::SequenceId sequence) const = 0;
  // Takes the pass's tokens in, for which there are pages; the logits that it wants to their places
  // in `logits`, [rows of the step][vocab].
  virtual void run(const Pass& pass, float* logits) = 0;
  // Behind each pass.
  virtual void advance(engine::SequenceId sequence, int64_t tokens) = 0;
  virtual void end_prompt(engine::SequenceId sequence) = 0;
  virtual void end_step() {}
  // What is thrown where so many pages are wanted and fewer are free.
  Error too_few_pages(int64_t pages) const;

 private:
  void check_items(std::span<const engine::StepItem> items) const;
  void require_pages(std::span<const engine::StepItem> items) const;
};

}  // namespace dmc::runtime

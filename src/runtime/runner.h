// What runs a model with a compressed cache, wherever it does: the engine's ModelRunner, and what
// commands say about the cache.
#pragma once

#include "engine/model_runner.h"
#include "policy/policy.h"
#include "runtime/weights.h"

namespace dmc::runtime {

class Runner : public engine::ModelRunner {
 public:
  virtual const Model& model() const = 0;
  virtual const policy::Policy& policy() const = 0;
  virtual int64_t length(engine::SequenceId sequence) const = 0;  // tokens seen
  // Of every (layer, KV head), [layers * kv_heads]; the open one counts.
  virtual std::vector<int64_t> slots(engine::SequenceId sequence) const = 0;
  virtual int64_t cache_bytes() const = 0;  // of all sequences

  int64_t vocab_size() const override { return model().config.vocab_size; }
  double compression_ratio(engine::SequenceId sequence) const override;

 protected:
  // Error(kInvalidArgument) if a sequence of so many tokens is longer than the context.
  void require_room(int64_t tokens) const;
};

// A prompt in pieces of at most `chunk` tokens.
std::vector<std::span<const int32_t>> chunks_of(std::span<const int32_t> tokens, int64_t chunk);

}  // namespace dmc::runtime

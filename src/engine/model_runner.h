// What the engine needs of a model: take tokens in, give logits back. Implemented on LibTorch in
// src/runtime, by fakes in tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/kv_cache.h"

namespace dmc::engine {

using cache::SequenceId;

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;

  virtual SequenceId add_sequence() = 0;
  virtual SequenceId fork(SequenceId parent) = 0;
  virtual void release(SequenceId sequence) = 0;

  // Takes `tokens` in behind what the sequence holds; the logits of the last one, [vocab_size].
  virtual std::vector<float> prefill(SequenceId sequence, std::span<const int32_t> tokens) = 0;
  // One token for each of `sequences` (all different); logits [sequences][vocab_size].
  virtual std::vector<float> decode(std::span<const SequenceId> sequences,
                                    std::span<const int32_t> tokens) = 0;
};

}  // namespace dmc::engine

// Generation of one text.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/model_runner.h"
#include "engine/sampler.h"

namespace dmc::engine {

enum class StopReason { kLength, kEndOfText, kContextFull, kCancelled };

struct GenerateOptions {
  int64_t max_tokens = 128;
  std::vector<int64_t> stop_ids;  // end-of-text tokens
  SamplingOptions sampling;
};

struct Generation {
  std::vector<int32_t> tokens;  // generated ones, without an end-of-text token
  StopReason stop = StopReason::kLength;
  double prefill_seconds = 0.0, decode_seconds = 0.0;
};

// Continues `prompt` (at least one token) on a sequence the caller owns. on_token is called with
// each token as it comes; `cancelled` is asked before each step. Error(kUsage) when the prompt does
// not fit the context.
Generation generate(ModelRunner& runner, SequenceId sequence, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(int32_t)>& on_token,
                    const std::function<bool()>& cancelled);

}  // namespace dmc::engine

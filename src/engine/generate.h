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
  int64_t held_tokens = 0;  // that the sequence has taken in before the prompt
};

struct Generation {
  std::vector<int32_t> tokens;  // generated ones, without an end-of-text token
  StopReason stop = StopReason::kLength;
  int64_t taken_in = 0;  // the first of them, which the sequence has seen: the last may not be
  double prefill_seconds = 0.0, decode_seconds = 0.0;
};

// Error(kInvalidArgument) when the prompt is empty or does not fit the context, or a sampling
// option is out of range. generate() checks too; callers that print before they generate ask first.
void check_request(const ModelRunner& runner, std::span<const int32_t> prompt,
                   const GenerateOptions& options);

// Continues `prompt` on a sequence the caller owns. on_token is called with each token as it comes;
// `cancelled` is asked after each portion of them that the runner writes at once, which takes about
// a twentieth of a second or is a single token. Error(kInvalidArgument) as check_request().
Generation generate(ModelRunner& runner, SequenceId sequence, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(int32_t)>& on_token,
                    const std::function<bool()>& cancelled);

}  // namespace dmc::engine

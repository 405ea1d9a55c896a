// From logits to the next token.
#pragma once

#include <cstdint>
#include <span>

namespace dmc::engine {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // keep the k likeliest; 0: all
  double top_p = 0.95;       // keep the likeliest that together reach this probability; 1: all
  uint64_t seed = 0;
};

// Error(kInvalidArgument) naming the option that is out of range.
void check_sampling_options(const SamplingOptions& options);

// The token for `position` of a text. The random number depends on (seed, position) alone, so a
// text does not depend on what else is in its batch. Ties go to the lower id. Error(kInternal) if
// a logit is not a number.
int32_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position);

}  // namespace dmc::engine

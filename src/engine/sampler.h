// From logits to the next token, and how likely a token was.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dmc::engine {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 0;         // keep the k likeliest; 0: all
  double top_p = 0.95;       // keep the likeliest that together reach this probability; 1: all
  uint64_t seed = 0;
  // Drop tokens less likely than this times the likeliest. sample() alone knows it: a device's
  // sampler (ModelRunner::write) does not.
  double min_p = 0.0;
};

// Error(kInvalidArgument) naming the option that is out of range.
void check_sampling_options(const SamplingOptions& options);

// The seed of one of several texts that a request asks for; the first keeps the request's own.
uint64_t seed_of_choice(uint64_t seed, int64_t choice);

// The token for `position` of a text. The random number depends on (seed, position) alone, so a
// text does not depend on what else is in its batch. Ties go to the lower id. Error(kInternal) if
// a logit is not a number.
int32_t sample(std::span<const float> logits, const SamplingOptions& options, int64_t position);

struct TokenLogprob {
  int32_t token;
  float logprob;  // natural logarithm of its probability
};

struct Logprobs {
  TokenLogprob token;             // the one that was written or given
  int64_t rank = 1;               // 1: none was likelier
  std::vector<TokenLogprob> top;  // the likeliest, in that order
};

// What the model itself thinks: the logarithm of the softmax of `logits` as they are, before
// temperature and penalties. `top` likeliest ones are listed (all, if the vocabulary has fewer).
// Error(kInternal) if a logit is not a number.
Logprobs logprobs_of(std::span<const float> logits, int32_t token, int64_t top);

}  // namespace dmc::engine

// From logits to probabilities of given tokens.
#pragma once

#include <cstdint>
#include <span>

namespace dmc::eval {

// How a model rates a token, or a run of tokens, that was to come.
struct LogLikelihood {
  double log_prob = 0.0;  // natural logarithm; of a run: the sum
  bool greedy = true;     // each token was the model's first choice (the lowest id of a tie)
};

// The rating of `token` under one row of logits. Error(kInternal) if the logits are not numbers.
LogLikelihood rate(std::span<const float> logits, int32_t token);

// The ratings of tokens[i] under row i of `logits`, [tokens.size()][vocabulary], put together.
LogLikelihood rate_run(std::span<const float> logits, std::span<const int32_t> tokens);

inline LogLikelihood operator+(const LogLikelihood& a, const LogLikelihood& b) {
  return {a.log_prob + b.log_prob, a.greedy && b.greedy};
}

}  // namespace dmc::eval

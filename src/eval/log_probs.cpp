#include "eval/log_probs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace dmc::eval {

LogLikelihood rate(std::span<const float> logits, int32_t token) {
  DMC_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  const auto best = std::ranges::max_element(logits);
  double total = 0.0;
  for (float x : logits) total += std::exp(static_cast<double>(x - *best));
  if (!std::isfinite(total)) {
    throw data_error("the model gave logits that are not numbers; its weights may be damaged");
  }
  return {logits[static_cast<size_t>(token)] - *best - std::log(total),
          best - logits.begin() == token};
}

LogLikelihood rate_run(std::span<const float> logits, std::span<const int32_t> tokens) {
  LogLikelihood sum;
  if (tokens.empty()) return sum;
  DMC_CHECK(logits.size() % tokens.size() == 0);
  const size_t row = logits.size() / tokens.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    sum = sum + rate(logits.subspan(i * row, row), tokens[i]);
  }
  return sum;
}

}  // namespace dmc::eval

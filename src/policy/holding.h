// Holding a compression ratio while a learned policy decides.
#pragma once

#include <cstdint>

namespace dmc::policy {

// The bias (DecisionInput::bias) for the next decisions of a sequence that has seen `tokens` and
// keeps `slots` of them (mean over its heads), so that tokens / slots goes to `cr`.
//
// It follows from the slots too many alone. Since those are the sum over all tokens of how far the
// rate of new slots was off, this is integral control of the rate: what is left to correct in the
// end is a fixed number of slots (some tens), however long the text. There is no state but the
// cache's own, so forks and batches need no care.
constexpr double holding_bias(int64_t tokens, double slots, double cr) {
  // Decisions spread over a few units in one model and over tens in another. So that both follow
  // soon and neither swings, the correction grows faster than the error.
  constexpr double kPerSlot = 0.1, kPerSquare = 0.01;
  constexpr double kMost = 100.0;
  const double too_many = slots - static_cast<double>(tokens) / cr;
  const double size = too_many < 0.0 ? -too_many : too_many;
  const double bias = too_many * (kPerSlot + kPerSquare * size);
  return bias < -kMost ? -kMost : bias > kMost ? kMost : bias;
}

}  // namespace dmc::policy

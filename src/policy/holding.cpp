#include "policy/holding.h"

#include <algorithm>
#include <cmath>

namespace dmc::policy {

double holding_bias(int64_t tokens, double slots, double cr) {
  // Decisions spread over a few units in one model and over tens in another. So that both follow
  // soon and neither swings, the correction grows faster than the error.
  constexpr double kPerSlot = 0.1, kPerSquare = 0.01;
  constexpr double kMost = 100.0;
  const double too_many = slots - static_cast<double>(tokens) / cr;
  const double bias = too_many * (kPerSlot + kPerSquare * std::abs(too_many));
  return std::clamp(bias, -kMost, kMost);
}

}  // namespace dmc::policy

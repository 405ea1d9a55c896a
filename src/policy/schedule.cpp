#include "policy/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dmc::policy {
namespace {

// A model that decides nothing yet, with logits of 0, merges nothing.
constexpr double kLeastOffset = 0.01;

double fraction(int64_t part, int64_t whole) {
  return whole <= 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double fade(int64_t step, int64_t steps) {
  return std::max(0.0, 1.0 - fraction(step, steps) / 0.8);
}

double ramped_cr(int64_t step, int64_t steps, double target) {
  return 1.0 + (target - 1.0) * std::min(1.0, fraction(step, steps));
}

double merge_fraction(double cr) { return 1.0 - 1.0 / cr; }

double adapted_weight(double weight, double gain, double wanted_cr, double measured_cr) {
  return std::max(0.0, weight + gain * (merge_fraction(wanted_cr) - merge_fraction(measured_cr)));
}

double adapted_offset(double offset, double gain, double wanted_cr, double served_cr) {
  return std::max(kLeastOffset,
                  offset + gain * (merge_fraction(served_cr) - merge_fraction(wanted_cr)));
}

double learning_rate(int64_t step, int64_t total, int64_t warmup, int64_t decay, double peak,
                     double floor) {
  if (step < warmup) return peak * fraction(step + 1, warmup);
  const int64_t into_decay = step - (total - decay);
  if (into_decay < 0 || decay <= 0) return peak;
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * fraction(into_decay, decay)));
  return floor + (peak - floor) * cosine;
}

}  // namespace dmc::policy

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/rng.h"
#include "policy/policy.h"

namespace dmc::policy {
namespace {

// The baseline: every token keeps its own slot.
Decision dense(const DecisionInput&) { return {false, 1.0f}; }

// Dynamic Memory Compression (paper, equations 1 and 2).
Decision dmc(const DecisionInput& in) {
  const float importance = 1.0f / (1.0f + std::exp(-(in.query_channel_mean + in.offset)));
  return {in.key_channel - in.offset > 0.0f, importance + in.epsilon};
}

// Merges at random, so that any model shows the speed of a ratio. Heads differ as those of a
// trained model do: log-uniformly by a factor of up to 4, spread evenly over the streams.
Decision forced(const DecisionInput& in) {
  constexpr double kGoldenRatio = 0.6180339887498949;
  const double spread = std::clamp(std::log2(in.forced_cr), 0.0, 1.0);
  const double place = std::fmod(static_cast<double>(in.stream + 1) * kGoldenRatio, 1.0);
  const double factor = std::exp2(spread * (1.0 - 2.0 * place));
  const double mean = spread > 0.0
                          ? std::sinh(spread * std::numbers::ln2) / (spread * std::numbers::ln2)
                          : 1.0;  // of the factor, over all places
  const double opens = std::min(1.0, factor / mean / in.forced_cr);
  const double draw = random_uniform(/*seed=*/4, static_cast<uint64_t>(in.stream),
                                     static_cast<uint64_t>(in.position));
  return {draw >= opens, 1.0f};
}

// StreamingLLM (Xiao et al. 2023): the first tokens, which attention falls back on, and the last.
size_t evict_outside_window(std::span<const SlotStats> slots, int64_t, int64_t) {
  constexpr int64_t kSinks = 4;
  const auto age = [](const SlotStats& slot) {
    return slot.position < kSinks ? std::numeric_limits<int64_t>::max() : slot.position;
  };
  return static_cast<size_t>(std::ranges::min_element(slots, {}, age) - slots.begin());
}

// TOVA (Oren et al. 2024): drops what the newest query attends to least.
size_t evict_least_attended(std::span<const SlotStats> slots, int64_t, int64_t) {
  return static_cast<size_t>(std::ranges::min_element(slots, {}, &SlotStats::attention) -
                             slots.begin());
}

// H2O (Zhang et al. 2023): half of the budget for the newest tokens, half for those that all
// queries together attended to most.
size_t evict_lightest(std::span<const SlotStats> slots, int64_t newest, int64_t budget) {
  const auto weight = [&](const SlotStats& slot) {
    const bool recent = slot.position > newest - budget / 2;
    return recent ? std::numeric_limits<double>::infinity() : slot.total;
  };
  return static_cast<size_t>(std::ranges::min_element(slots, {}, weight) - slots.begin());
}

constexpr Policy kPolicies[] = {
    {"dense", "keep every token in a slot of its own", false, dense},
    {"dmc", "merge tokens into the newest slot where the model decides so", true, dmc},
    {"window", "keep the first 4 and the newest tokens of --budget (StreamingLLM)", false, dense,
     evict_outside_window},
    {"tova", "drop what the newest query attends to least, beyond --budget", false, dense,
     evict_least_attended, /*layer_wide=*/true},
    {"h2o", "keep the newest and the most attended tokens, half of --budget each", false, dense,
     evict_lightest},
    {"forced", "merge at random to reach --force-cr, to measure speed", false, forced},
};

}  // namespace

std::span<const Policy> policies() { return kPolicies; }

const Policy* find_policy(std::string_view name) {
  for (const Policy& policy : kPolicies) {
    if (policy.name == name) return &policy;
  }
  return nullptr;
}

}  // namespace dmc::policy

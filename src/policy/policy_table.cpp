#include <cfloat>
#include <cmath>

#include "policy/policy.h"

namespace dmc::policy {
namespace {

// The baseline: every token keeps its own slot.
Decision dense(const DecisionInput&) { return {false, 1.0f}; }

// Dynamic Memory Compression (paper, equations 1 and 2).
Decision dmc(const DecisionInput& in) {
  const float importance = 1.0f / (1.0f + std::exp(-(in.query_channel_mean + in.offset)));
  return {in.key_channel - in.offset > 0.0f, importance + FLT_EPSILON};
}

constexpr Policy kPolicies[] = {
    {"dense", "keep every token in a slot of its own", false, dense},
    {"dmc", "merge tokens into the newest slot where the model decides so", true, dmc},
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

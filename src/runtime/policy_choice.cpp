#include "runtime/policy_choice.h"

#include <algorithm>

#include "base/error.h"
#include "base/join.h"

namespace dmc::runtime {
namespace {

const policy::Policy& named_policy(const model::ModelConfig& config, const PolicyOptions& options) {
  std::string name = options.policy;
  if (name.empty()) {
    name = options.forced_cr > 1.0 ? "forced" : config.dmc ? config.dmc->method : "dense";
  }
  const policy::Policy* policy = policy::find_policy(name);
  if (policy == nullptr) {
    throw invalid_argument("policy", "\"" + name + "\" is not one of " +
                                         join(policy::policies(), ", ", &policy::Policy::name));
  }
  if (policy->needs_dmc_config && !config.dmc) {
    throw invalid_argument(
        "policy", name +
                      " needs a retrofitted model, and this one's config.json has no dmc_config; "
                      "run `dmc retrofit` on it first");
  }
  if (policy->needs_dmc_config && config.dmc->method != name) {
    throw invalid_argument("policy", "this model was retrofitted for " + config.dmc->method +
                                         ", its decisions mean nothing to " + name);
  }
  return *policy;
}

void require_budget(const policy::Policy& policy, const PolicyOptions& options) {
  const std::string name(policy.name);
  if (options.budget == 0 && options.cr == 0.0) {
    throw invalid_argument("policy",
                           name + " drops tokens beyond a budget; give a budget, the " +
                               "slots a head may keep, or a cr, for one slot in cr tokens");
  }
  if (options.budget > 0 && options.budget < policy.least_budget) {
    throw invalid_argument("budget", name + " needs " + std::to_string(policy.least_budget) +
                                         " slots or more, found " + std::to_string(options.budget));
  }
}

void check_options(const policy::Policy& policy, const PolicyOptions& options) {
  const std::string name(policy.name);
  if (options.budget > 0 && options.cr > 0.0) {
    throw invalid_argument(
        "budget", "is given together with cr, and both say how much is kept; give one of them");
  }
  if (policy.least_budget > 0) {
    require_budget(policy, options);
  } else if (options.budget > 0) {
    throw invalid_argument("budget", "policy " + name + " has none");
  }
  if (options.decision_bias != 0.0 && !policy.needs_dmc_config) {
    throw invalid_argument("decision_bias", "policy " + name + " asks no model for decisions");
  }
  if (options.mass_term && policy.drops()) {
    throw invalid_argument("mass_term",
                           "policy " + name + " merges no tokens, its slots weigh the same");
  }
  if (options.cr > 0.0 && policy.name == "dense") {
    throw invalid_argument("cr", "the policy dense keeps every token; give another policy");
  }
}

}  // namespace

int64_t prompt_chunk(const PolicyChoice& choice, int64_t wanted) {
  constexpr int64_t kHoldingChunk = 16;
  return std::max<int64_t>(1,
                           choice.knobs.held_cr > 0.0 ? std::min(wanted, kHoldingChunk) : wanted);
}

PolicyChoice choose_policy(const model::ModelConfig& config, const PolicyOptions& options) {
  const policy::Policy& policy = named_policy(config, options);
  check_options(policy, options);
  DecisionKnobs knobs{options.decision_bias, 0.0, options.forced_cr};
  if (options.cr > 0.0) (policy.needs_dmc_config ? knobs.held_cr : knobs.forced_cr) = options.cr;
  return {policy, options.budget, options.cr > 0.0 ? options.cr : 1.0, knobs, options.mass_term};
}

}  // namespace dmc::runtime

// Which policy a model runs with, and how the wanted compression reaches it.
#pragma once

#include <string>

#include "model/model_config.h"
#include "policy/policy.h"

namespace dmc::runtime {

struct PolicyOptions {
  std::string policy;  // name in the policy table; empty: the model's own, dense if it has none
  // How far to compress; one of them at most. With neither, learned policies decide by themselves.
  int64_t budget = 0;  // slots a head may keep, for policies that have a budget; 0: not given
  double cr = 0.0;     // ratio: of the budget, of chance, or to be held by the bias; 0: not given
  double decision_bias = 0.0;  // of learned policies: above 0, more tokens merge or go
  bool mass_term = false;      // CacheConfig::mass_term
  double forced_cr = 1.0;      // above 1 and no policy named: "forced" at that ratio
};

// What the decoder needs to take decisions.
struct DecisionKnobs {
  double bias = 0.0;
  double held_cr = 0.0;    // 0: none is held
  double forced_cr = 1.0;  // with the policy "forced"
};

struct PolicyChoice {
  const policy::Policy& policy;
  int64_t budget;  // as CacheConfig::budget and cr
  double budget_cr;
  DecisionKnobs knobs;
  bool mass_term;
};

// Tokens of a prompt to take in at once, of `wanted` at most. While a ratio is held the bias is
// looked at anew for every few tokens.
int64_t prompt_chunk(const PolicyChoice& choice, int64_t wanted);

// Error(kInvalidArgument) for an unknown policy, one the model was not trained for, or options that
// the policy has no use for.
PolicyChoice choose_policy(const model::ModelConfig& config, const PolicyOptions& options);

}  // namespace dmc::runtime

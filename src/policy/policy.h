// What a compression policy MEANS: for each token and KV head, open a new slot or merge into the
// newest one, and with what weight. Scalar and readable; kernels and models are checked against it.
#pragma once

#include <cfloat>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "policy/eviction.h"

namespace dmc::policy {

struct DecisionInput {
  // Logits without offset and bias, from the model's decision source: the last channel, before
  // rotary, of k and of q (the mean over the KV head's group), or what its adapter says.
  float decision = 0.0f, importance = 0.0f;
  float offset = 0.0f;          // c, from the model's dmc_config
  float epsilon = FLT_EPSILON;  // added to the importance, likewise
  float bias = 0.0f;            // of serving: above 0, more tokens merge or go
  // For policies that do not look at the token:
  int64_t stream = 0, position = 0;  // which (layer, KV head), counted through; which token
  double forced_cr = 1.0;            // the ratio to reach on average
};

struct Decision {
  // False: open a new slot. The cache ignores it for a sequence's first token. For a policy that
  // evicts late, true says that the token BEFORE this one will go.
  bool merge;
  float importance;  // omega > 0: the token's weight in its slot
};

// Policies that compress a prompt once, at its end: `attention` is what the prompt's last queries
// (its last `observes` tokens) gave each slot before them, all queries together, in the order of
// tokens. Returns the `keep` slots to keep, ascending; the observing tokens stay in any case.
using KeepOfPrompt = std::vector<size_t> (*)(std::span<const double> attention, size_t keep);

struct Policy {
  std::string_view name;
  std::string_view summary;
  bool needs_dmc_config = false;  // true: the model must have been retrofitted for this policy
  Decision (*decide)(const DecisionInput&);
  Eviction evict = Eviction::kNone;  // kNone: no slot goes because there are too many
  bool layer_wide = false;           // the heads of a layer evict as one, by their mean attention
  bool late = false;  // a token that was decided against goes when it leaves the window
  KeepOfPrompt keep_of_prompt = nullptr;  // null: a prompt's end means nothing
  int64_t observes = 0;                   // with keep_of_prompt: tokens at the prompt's end
  int64_t least_budget = 0;               // slots; 0: the policy has no budget

  bool evicts() const { return evict != Eviction::kNone; }
  // Whether slots of one stream can go, so that they must be told apart.
  bool drops() const { return evicts() || late || keep_of_prompt != nullptr; }
};

std::span<const Policy> policies();                // policy_table.cpp
const Policy* find_policy(std::string_view name);  // null if there is none of that name

}  // namespace dmc::policy

// What a compression policy MEANS: for each token and KV head, open a new slot or merge into the
// newest one, and with what weight. Scalar and readable; kernels and models are checked against it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "policy/eviction.h"
#include "policy/learned.h"

namespace dmc::policy {

struct DecisionInput {
  // Logits without scale, offset and bias, from the model's decision source
  // (model::DmcConfig::decision_source).
  float decision = 0.0f, importance = 0.0f;
  LearnedConstants constants;
  float bias = 0.0f;  // of serving: above 0, more tokens merge or go
  // For policies that do not look at the token:
  int64_t stream = 0, position = 0;  // which (layer, KV head), counted through; which token
  double forced_cr = 1.0;            // the ratio to reach on average
};

// What a token does to the newest slot when it joins the compressed part of its stream. A stream's
// first token appends whatever its decision.
enum class Decision : uint8_t {
  kAppend,        // opens a slot of its own
  kMerge,         // takes the newest slot over, with what it holds
  kDropPrevious,  // takes the newest slot over, and what it held is gone
};

// Whether the token before, as a slot of its own, is no longer seen.
constexpr bool hides_previous(Decision decision) { return decision != Decision::kAppend; }

struct Verdict {
  Decision decision;
  float importance;  // omega > 0: the token's weight in its slot
};

// Of learned policies: what a token that the next one hides leaves in the slot that stays.
enum class Carry : uint8_t {
  kNothing,       // it is dropped (DMS)
  kImportance,    // the slot is the mean of its tokens, each by its importance (DMC)
  kBesideNewest,  // likewise, but the slot's newest token weighs 1, whatever its importance
};

// Policies that compress a prompt once, at its end: `attention` is what the prompt's last queries
// (its last `observes` tokens) gave each slot before them, all queries together, in the order of
// tokens. Returns the `keep` slots to keep, ascending; the observing tokens stay in any case.
using KeepOfPrompt = std::vector<size_t> (*)(std::span<const double> attention, size_t keep);

struct Policy {
  std::string_view name;
  std::string_view summary;
  bool needs_dmc_config = false;  // true: the model must have been retrofitted for this policy
  Verdict (*decide)(const DecisionInput&);
  Eviction evict = Eviction::kNone;  // kNone: no slot goes because there are too many
  bool layer_wide = false;           // the heads of a layer evict as one, by their mean attention
  // A token stays as it is while it is among the newest, as many as the model's dmc_config says,
  // and joins its stream's slots when it no longer is. What decisions carry is in `carry`.
  bool delayed = false;
  Carry carry = Carry::kNothing;
  KeepOfPrompt keep_of_prompt = nullptr;  // null: a prompt's end means nothing
  int64_t observes = 0;                   // with keep_of_prompt: tokens at the prompt's end
  int64_t least_budget = 0;               // slots; 0: the policy has no budget

  bool evicts() const { return evict != Eviction::kNone; }
  // Whether slots of one stream can go, so that they must be told apart.
  bool drops() const { return evicts() || drops_late() || keep_of_prompt != nullptr; }
  // Whether what a prompt leaves in the cache depends on the prompt alone, token by token, so that
  // texts may share the cache of what they begin with.
  bool shares_prefixes() const { return !evicts() && keep_of_prompt == nullptr; }
  bool drops_late() const { return delayed && carry == Carry::kNothing; }
};

std::span<const Policy> policies();                // policy_table.cpp
const Policy* find_policy(std::string_view name);  // null if there is none of that name

}  // namespace dmc::policy

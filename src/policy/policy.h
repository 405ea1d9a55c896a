// What a compression policy MEANS: for each token and KV head, open a new slot or merge into the
// newest one, and with what weight. Scalar and readable; kernels and models are checked against it.
#pragma once

#include <cfloat>
#include <span>
#include <string_view>

namespace dmc::policy {

struct DecisionInput {
  float key_channel = 0.0f;         // k[last] of this KV head, before rotary
  float query_channel_mean = 0.0f;  // mean of q[last] over the head's query group, before rotary
  float offset = 0.0f;              // c, from the model's dmc_config
  float epsilon = FLT_EPSILON;      // added to the importance, likewise
  // For policies that do not look at the token:
  int64_t stream = 0, position = 0;  // which (layer, KV head), counted through; which token
  double forced_cr = 1.0;            // the ratio to reach on average
};

struct Decision {
  bool merge;        // false: open a new slot. The cache ignores it for a sequence's first token
  float importance;  // omega > 0: the token's weight in its slot
};

// A closed slot as an eviction policy sees it. Attention is that of one KV head: the mean over its
// query heads.
struct SlotStats {
  int64_t position = 0;    // of the slot's token
  float attention = 0.0f;  // that the newest query gave it
  double total = 0.0;      // that all queries since, its own included, gave it
};

// Policies that drop slots: `slots` closed ones, one more than there is room for beside the newest
// token, which is at position `newest`. Returns the index of the one to drop.
using Evict = size_t (*)(std::span<const SlotStats> slots, int64_t newest, int64_t budget);

struct Policy {
  std::string_view name;
  std::string_view summary;
  bool needs_dmc_config;  // true: the model must have been retrofitted
  Decision (*decide)(const DecisionInput&);
  Evict evict = nullptr;    // null: slots stay
  bool layer_wide = false;  // the heads of a layer evict as one, by their mean attention
};

std::span<const Policy> policies();                // policy_table.cpp
const Policy* find_policy(std::string_view name);  // null if there is none of that name

}  // namespace dmc::policy

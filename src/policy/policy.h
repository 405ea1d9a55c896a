// What a compression policy MEANS: for each token and KV head, open a new slot or merge into the
// newest one, and with what weight. Scalar and readable; kernels and models are checked against it.
#pragma once

#include <span>
#include <string_view>

namespace dmc::policy {

struct DecisionInput {
  float key_channel = 0.0f;         // k[last] of this KV head, before rotary
  float query_channel_mean = 0.0f;  // mean of q[last] over the head's query group, before rotary
  float offset = 0.0f;              // c, from the model's dmc_config
  // For policies that do not look at the token:
  int64_t stream = 0, position = 0;  // which (layer, KV head), counted through; which token
  double forced_cr = 1.0;            // the ratio to reach on average
};

struct Decision {
  bool merge;        // false: open a new slot. The cache ignores it for a sequence's first token
  float importance;  // omega > 0: the token's weight in its slot
};

struct Policy {
  std::string_view name;
  std::string_view summary;
  bool needs_dmc_config;  // true: the model must have been retrofitted
  Decision (*decide)(const DecisionInput&);
};

std::span<const Policy> policies();                // policy_table.cpp
const Policy* find_policy(std::string_view name);  // null if there is none of that name

}  // namespace dmc::policy

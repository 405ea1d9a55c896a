// What a compression policy MEANS: for each token and KV head, open a new slot or merge into the
// newest one, and with what weight. Scalar and readable; kernels and models are checked against it.
#pragma once

#include <span>
#include <string_view>

namespace dmc::policy {

struct DecisionInput {
  float key_channel;         // k[last] of this KV head, before rotary
  float query_channel_mean;  // mean of q[last] over the head's query group, before rotary
  float offset;              // c, from the model's dmc_config
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

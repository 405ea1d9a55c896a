// For tests: what a runner may run, families, policies and knobs.
#pragma once

#include "runtime/decoder_runner.h"
#include "runtime/device/device_testing.h"

namespace dmc::runtime {

inline model::ModelConfig dmc_config(int64_t window = 12) {
  model::ModelConfig config = small_config();
  config.dmc = model::DmcConfig{.window = window, .decision_offset = 0.05};
  return config;
}

inline model::ModelConfig dms_config(int64_t delay) {
  model::ModelConfig config = dmc_config(/*window=*/1);
  config.dmc->method = "dms";
  config.dmc->delay = delay;
  return config;
}

inline model::ModelConfig delayed_config(int64_t delay, int64_t window = 12) {
  model::ModelConfig config = dmc_config(window);
  config.dmc->method = "dmc-delayed";
  config.dmc->delay = delay;
  config.dmc->importance_offset = -0.5;
  return config;
}

struct Variant {
  const char* name;
  model::ModelConfig config;
  RunnerOptions options;

  bool runs_on_a_device() const { return !config.dmc || config.dmc->method != "dmc-delayed"; }
};

inline std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](const char* name, const model::ModelConfig& config,
                       const RunnerOptions& options = {}) {
    all.push_back({name, config, options});
  };
  model::ModelConfig biased = dmc_config(), normed = dmc_config(3), tied = dmc_config(0),
                     alone = dmc_config(1);
  biased.attention_bias = true;  // as Qwen 2
  normed.qk_norm = true;         // as Qwen 3
  tied.tie_embeddings = true;
  alone.num_kv_heads = alone.num_heads;  // a query a head
  alone.dmc->zero_after_rope = true;
  alone.dmc->importance_epsilon = 0.01;
  add("dense", small_config());
  add("bias", biased);
  add("head norms", normed);
  add("tied, no window", tied);
  add("newest token only", alone);
  add("short chunks", dmc_config(), {.chunk = 7});
  add("int8 slots", dmc_config(), {.kv = DType::kI8});
  add("fp8 slots", dmc_config(), {.kv = DType::kF8E4M3});
  add("f16 slots", dmc_config(), {.kv = DType::kF16});
  add("dense on dmc", dmc_config(), {.compression = {.policy = "dense"}});
  add("decision bias", dmc_config(), {.compression = {.decision_bias = 0.3}});
  add("a held ratio", dmc_config(), {.compression = {.cr = 2.5}});
  add("a held ratio and a bias", dmc_config(), {.compression = {.cr = 1.5, .decision_bias = 0.1}});
  for (const int64_t delay : {0, 1, 5, 16, 200}) {
    add("dms", dms_config(delay));
    add("dms, short chunks", dms_config(delay), {.chunk = 7});
  }
  add("dms in int8", dms_config(5), {.kv = DType::kI8});
  for (const int64_t delay : {0, 1, 5, 16, 200}) {
    add("delayed", delayed_config(delay));
    add("delayed, short chunks, no window", delayed_config(delay, 0), {.chunk = 7});
  }
  add("delayed in int8", delayed_config(5), {.kv = DType::kI8});
  add("delayed at a held ratio", delayed_config(20), {.compression = {.cr = 2.0}});
  add("dense on delayed", delayed_config(20), {.compression = {.policy = "dense"}});
  add("dms at a held ratio", dms_config(20), {.compression = {.cr = 2.0}});
  for (model::ModelConfig config : {small_gpt2_config(), small_bert_config()}) {
    const char* const name = config.post_norm ? "as BERT" : "as GPT-2";
    add(name, config);
    config.dmc = model::DmcConfig{.decision_offset = 0.05};
    add(name, config, {.chunk = 30});
    config.dmc->decision_source = "adapter";
    add(name, config);
  }
  for (model::ModelConfig config : {dmc_config(), dms_config(9)}) {
    config.dmc->decision_source = "adapter";
    add("an adapter", config);
    add("an adapter at a held ratio", config, {.compression = {.cr = 2.0}});
    add("dense on an adapter", config, {.compression = {.policy = "dense"}});
  }
  for (const bool norms : {false, true}) {
    model::ModelConfig config = dms_config(9);
    config.qk_norm = norms;
    config.dmc->decision_source = "query";
    config.dmc->decision_scale = 3.0;
    add("the first query's channel", config);
    add("the first query's channel at a held ratio", config, {.compression = {.cr = 2.0}});
    add("dense on the first query's channel", config, {.compression = {.policy = "dense"}});
  }
  add("forced", small_config(), {.compression = {.forced_cr = 3.0}});
  add("forced on dmc", dmc_config(), {.compression = {.forced_cr = 2.0}});
  return all;
}

// Every policy of the table, with a budget that a short text spends where it has one.
inline std::vector<Variant> all_policies() {
  std::vector<Variant> all;
  for (const policy::Policy& policy : policy::policies()) {
    model::ModelConfig config = policy.needs_dmc_config ? dmc_config() : small_config();
    if (policy.needs_dmc_config) config.dmc->method = policy.name;
    if (policy.drops_late()) config = dms_config(/*delay=*/12);
    RunnerOptions options{.compression = {.policy = std::string(policy.name)}};
    if (policy.least_budget > 0) options.compression.budget = policy.least_budget + 4;
    all.push_back({policy.name.data(), config, options});
  }
  return all;
}

}  // namespace dmc::runtime

#include "train/options.h"

#include <nlohmann/json.hpp>

#include "model/token_id.h"
#include "train/stage.h"

namespace dmc::train {

int64_t TrainOptions::total_steps() const {
  int64_t total = 0;
  for (const StageRun& run : stages) total += run.steps;
  return total;
}

int64_t TrainOptions::ramp_steps() const {
  for (const StageRun& run : stages) {
    if (run.stage->name == "retrofit") return run.steps;
  }
  return 0;
}

int32_t TrainOptions::separator(const model::ModelConfig& config) const {
  if (!eos_token_id) return model::document_separator(config, model_dir);
  model::require_token(config, "eos_token_id", *eos_token_id);
  return static_cast<int32_t>(*eos_token_id);
}

std::string TrainOptions::identity_json() const {
  nlohmann::json stage_list = nlohmann::json::array();
  for (const StageRun& run : stages) {
    stage_list.push_back({{"stage", run.stage->name}, {"steps", run.steps}});
  }
  std::vector<std::string> sources;
  for (const auto& path : data) sources.push_back(path.string());
  return nlohmann::json{
      {"stages", stage_list},
      {"data", sources},
      {"fresh", fresh},
      {"batch", batch},
      {"accumulate", accumulate},
      {"length", length},
      {"learning_rate", learning_rate},
      {"final_learning_rate", final_learning_rate},
      {"warmup_steps", warmup_steps},
      {"decay_steps", decay_steps},
      {"weight_decay", weight_decay},
      {"beta1", beta1},
      {"beta2", beta2},
      {"epsilon", epsilon},
      {"clip", clip},
      {"seed", seed},
      {"eos_token_id", eos_token_id.value_or(-1)},
      {"method", retrofit.method},
      {"decisions", retrofit.decisions},
      {"train_base", retrofit.train_base},
      {"cr", retrofit.target_cr},
      {"window", retrofit.window},
      {"delay", retrofit.delay},
      {"importance_offset", retrofit.importance_offset.value_or(retrofit.offset)},
      {"offset", retrofit.offset},
      {"temperature", retrofit.temperature},
      {"decision_scale", retrofit.decision_scale},
      {"compression_weight", retrofit.compression_weight},
      {"weight_gain", retrofit.weight_gain},
      {"offset_gain", retrofit.offset_gain},
      {"head_cr_cap", retrofit.head_cr_cap},
      {"distill", retrofit.distill},
      {"distill_weight", retrofit.distill_weight},
      {"save_at_cr", retrofit.save_at_cr},
  }
      .dump();
}

}  // namespace dmc::train

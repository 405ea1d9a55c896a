#include "model/model_config.h"

#include "base/error.h"
#include "policy/policy.h"

namespace dmc::model {

bool DmcConfig::pools() const {
  const policy::Policy* const policy = policy::find_policy(method);
  DMC_CHECK(policy != nullptr);
  return policy->carry != policy::Carry::kNothing;
}

policy::LearnedConstants DmcConfig::constants() const {
  return {.scale = static_cast<float>(decision_scale),
          .offset = static_cast<float>(decision_offset),
          .importance_offset = static_cast<float>(importance_offset.value_or(decision_offset)),
          .epsilon = static_cast<float>(importance_epsilon)};
}

const char* DmcConfig::only_runs() const {
  if (zero_after_rope) return "zero_after_rope";
  return flat_keys ? "dms_window_size" : nullptr;
}

void require_context(const ModelConfig& config, const std::string& field, int64_t tokens) {
  if (tokens <= config.context()) return;
  throw invalid_argument(field, std::to_string(tokens) +
                                    " tokens are more than the model's context of " +
                                    std::to_string(config.context()));
}

int32_t document_separator(const ModelConfig& config, const std::filesystem::path& dir) {
  if (config.eos_token_ids.empty()) {
    throw data_error(
        (dir / "config.json").string() +
        ": eos_token_id is needed to separate documents, found none; write it there, or " +
        "name the token when you start");
  }
  const int64_t id = config.eos_token_ids.front();
  if (id < config.vocab_size) return static_cast<int32_t>(id);
  throw data_error("eos_token_id, which separates documents, is " + std::to_string(id) +
                   ", the model of " + dir.string() + " has embeddings for 0 to " +
                   std::to_string(config.vocab_size - 1));
}

}  // namespace dmc::model

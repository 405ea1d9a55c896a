// config.json of a Hugging Face model directory, and the `dmc_config` object this project adds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dmc::io {

// What a DMC checkpoint says about itself: the nested object "dmc_config" in config.json.
struct DmcConfig {
  double target_cr = 1.0;          // compression ratio it was trained for
  int64_t window = 12;             // tokens of a segment that its slot averages; 0: all of them
  double decision_offset = 5.0;    // c in the decision and importance logits
  std::string stage = "dense";     // training stage it stopped after: zero-out, retrofit, finetune
  int64_t trained_tokens = 0;      // tokens seen during the retrofit
  int64_t max_trained_length = 0;  // longest sequence seen during the retrofit
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM" or "DmcLlamaForCausalLM"
  std::string model_type;    // "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-5;
  bool tie_embeddings = false;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;
  std::optional<DmcConfig> dmc;  // absent: a dense model
  std::string source_json;       // the object as read, so that unknown keys survive a round trip

  int64_t group_size() const { return num_heads / num_kv_heads; }
};

// Reads DIR/config.json. A missing or ill-typed key, an unsupported feature (rope scaling, biases,
// another activation) or architecture is Error(kData) naming file and key; never a silent default.
ModelConfig read_model_config(const std::filesystem::path& dir);

// The text of a config.json for `config`: source_json's keys kept, ours written over them;
// architectures is DmcLlamaForCausalLM exactly if config.dmc is set.
std::string model_config_json(const ModelConfig& config);

}  // namespace dmc::io

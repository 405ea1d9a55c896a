// For tests: a small model of each family.
#pragma once

#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"
#include "model/config_file.h"
#include "model/families/family.h"

namespace dmc::model {

// `config` written to a config.json and read back, which fills in what makes the family.
inline ModelConfig reread(const ModelConfig& config) {
  const TempFolder folder;
  std::ofstream(folder.path() / "config.json") << model_config_json(config);
  return read_model_config(folder.path());
}

inline ModelConfig tiny_config(const Family& family) {
  ModelConfig config;
  config.model_type = family.model_type;
  config.vocab_size = 40;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = config.num_kv_heads = 4;
  config.head_dim = 8;
  config.max_positions = 64;
  config.token_types = 2;
  config.tie_embeddings = true;
  try {
    return reread(config);
  } catch (const Error&) {  // of the other kind of MLP
    config.activation = Activation::kGelu;
    return reread(config);
  }
}

}  // namespace dmc::model

// Parts of config.json that several families share.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <span>
#include <string>

#include "model/families/family.h"

namespace dmc::model {

// A whole number of the config and the key it stands under.
struct SizeKey {
  const char* key;
  int64_t model::ModelConfig::*member;
  int64_t most = kLargestSize;
};

constexpr int64_t kMostLayers = 10'000;
constexpr int64_t kMostPositions = int64_t{1} << 20;

void read_sizes(const JsonFields& fields, std::span<const SizeKey> keys,
                model::ModelConfig* config);
void write_sizes(const model::ModelConfig& config, std::span<const SizeKey> keys,
                 nlohmann::ordered_json* root);

// The activation that transformers calls `name`, if it is one of `allowed`.
model::Activation read_activation(const JsonFields& fields, const std::string& key,
                                  std::span<const model::Activation> allowed);
const char* activation_name(model::Activation activation);

// hidden_size / num_heads, or Error(kData) naming the heads' key if that is not a whole number.
int64_t even_head_dim(const JsonFields& fields, const std::string& heads_key,
                      const model::ModelConfig& config);

// Qwen's keys for attention that reaches back a limited number of tokens in some layers.
std::optional<int64_t> read_optional_window(const JsonFields& fields);

// Rotary settings: rope_theta with rope_scaling, or the object rope_parameters into which
// transformers 5 moved both. Scaling of another kind than linear or llama3 is refused.
model::RopeConfig read_rope(const JsonFields& fields);
void write_rope(const model::RopeConfig& rope, nlohmann::ordered_json* root);

}  // namespace dmc::model

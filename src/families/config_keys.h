// Parts of config.json that several families share.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <span>
#include <string>

#include "families/family.h"

namespace dmc::families {

// A whole number of the config and the key it stands under.
struct SizeKey {
  const char* key;
  int64_t io::ModelConfig::*member;
  int64_t most = io::kLargestSize;
};

constexpr int64_t kMostLayers = 10'000;
constexpr int64_t kMostPositions = int64_t{1} << 20;

void read_sizes(const io::JsonFields& fields, std::span<const SizeKey> keys,
                io::ModelConfig* config);
void write_sizes(const io::ModelConfig& config, std::span<const SizeKey> keys,
                 nlohmann::ordered_json* root);

// The activation that transformers calls `name`, if it is one of `allowed`.
io::Activation read_activation(const io::JsonFields& fields, const std::string& key,
                               std::span<const io::Activation> allowed);
const char* activation_name(io::Activation activation);

// hidden_size / num_heads, or Error(kData) naming the heads' key if that is not a whole number.
int64_t even_head_dim(const io::JsonFields& fields, const std::string& heads_key,
                      const io::ModelConfig& config);

// Qwen's keys for attention that reaches back a limited number of tokens in some layers.
std::optional<int64_t> read_optional_window(const io::JsonFields& fields);

// Rotary settings: rope_theta with rope_scaling, or the object rope_parameters into which
// transformers 5 moved both. Scaling of another kind than linear or llama3 is refused.
io::RopeConfig read_rope(const io::JsonFields& fields);
void write_rope(const io::RopeConfig& rope, nlohmann::ordered_json* root);

}  // namespace dmc::families

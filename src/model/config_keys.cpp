#include "model/config_keys.h"

#include "base/join.h"

#include <algorithm>

namespace dmc::model {
namespace {

// The first name of an activation is the one that is written.
constexpr std::pair<const char*, Activation> kActivations[] = {
    {"silu", Activation::kSiluGated},
    {"gelu", Activation::kGelu},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
};

constexpr std::pair<const char*, RopeConfig::Scaling> kScalings[] = {
    {"default", RopeConfig::Scaling::kNone},
    {"linear", RopeConfig::Scaling::kLinear},
    {"llama3", RopeConfig::Scaling::kLlama3},
};

RopeConfig::Scaling read_scaling_kind(const JsonFields& rope, const std::string& key) {
  const std::string text = rope.text(key);
  for (const auto& [name, kind] : kScalings) {
    if (text == name) return kind;
  }
  throw rope.wrong(key, "default, linear or llama3");
}

// `rope` is the object with the settings of the scaling.
void read_scaling(const JsonFields& rope, RopeConfig* config) {
  config->scaling = read_scaling_kind(rope, rope.has("rope_type") ? "rope_type" : "type");
  if (config->scaling == RopeConfig::Scaling::kNone) return;
  config->factor = rope.positive("factor");
  if (config->scaling != RopeConfig::Scaling::kLlama3) return;
  config->low_freq_factor = rope.positive("low_freq_factor");
  config->high_freq_factor = rope.positive("high_freq_factor");
  config->original_positions = rope.size("original_max_position_embeddings");
  if (config->high_freq_factor <= config->low_freq_factor) {
    throw rope.wrong("high_freq_factor", "more than low_freq_factor");
  }
}

}  // namespace

void read_sizes(const JsonFields& fields, std::span<const SizeKey> keys, ModelConfig* config) {
  for (const SizeKey& size : keys) config->*size.member = fields.size(size.key, 1, size.most);
}

void write_sizes(const ModelConfig& config, std::span<const SizeKey> keys,
                 nlohmann::ordered_json* root) {
  for (const SizeKey& size : keys) (*root)[size.key] = config.*size.member;
}

Activation read_activation(const JsonFields& fields, const std::string& key,
                           std::span<const Activation> allowed) {
  const std::string text = fields.text(key);
  std::vector<std::string> known;
  for (const auto& [name, activation] : kActivations) {
    if (std::ranges::find(allowed, activation) == allowed.end()) continue;
    if (text == name) return activation;
    known.emplace_back(name);
  }
  throw fields.wrong(key, join(known, " or "));
}

const char* activation_name(Activation activation) {
  return std::ranges::find(kActivations, activation, [](const auto& entry) { return entry.second; })
      ->first;
}

int64_t even_head_dim(const JsonFields& fields, const std::string& heads_key,
                      const ModelConfig& config) {
  if (config.hidden_size % config.num_heads != 0) {
    throw fields.wrong(heads_key,
                       "a divisor of the hidden size " + std::to_string(config.hidden_size));
  }
  return config.hidden_size / config.num_heads;
}

std::optional<int64_t> read_optional_window(const JsonFields& fields) {
  if (fields.boolean_or("use_sliding_window", false)) return fields.size("sliding_window");
  if (!fields.has("layer_types")) return std::nullopt;
  for (const auto& type : fields.at("layer_types")) {
    if (type != "full_attention") throw fields.wrong("layer_types", "full_attention in all layers");
  }
  return std::nullopt;
}

RopeConfig read_rope(const JsonFields& fields) {
  RopeConfig config;
  fields.refuse_unless("partial_rotary_factor", 1.0);
  if (fields.has("rope_parameters")) {
    const JsonFields rope = fields.object("rope_parameters");
    rope.refuse_unless("partial_rotary_factor", 1.0);
    config.theta = rope.positive("rope_theta");
    if (rope.has("rope_type")) read_scaling(rope, &config);
    return config;
  }
  // Llama 2 came before the key; transformers documents its default, which `config` has.
  if (fields.has("rope_theta")) config.theta = fields.positive("rope_theta");
  if (fields.has("rope_scaling")) read_scaling(fields.object("rope_scaling"), &config);
  return config;
}

void write_rope(const RopeConfig& rope, nlohmann::ordered_json* root) {
  if (root->contains("rope_parameters")) return;  // as it was read: nothing here changes it
  (*root)["rope_theta"] = rope.theta;
  if (rope.scaling == RopeConfig::Scaling::kNone || root->contains("rope_scaling")) return;
  nlohmann::ordered_json scaling = {
      {"rope_type",
       std::ranges::find(kScalings, rope.scaling, [](const auto& entry) { return entry.second; })
           ->first},
      {"factor", rope.factor}};
  if (rope.scaling == RopeConfig::Scaling::kLlama3) {
    scaling["low_freq_factor"] = rope.low_freq_factor;
    scaling["high_freq_factor"] = rope.high_freq_factor;
    scaling["original_max_position_embeddings"] = rope.original_positions;
  }
  (*root)["rope_scaling"] = scaling;
}

}  // namespace dmc::model

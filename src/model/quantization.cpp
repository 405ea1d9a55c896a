#include "model/quantization.h"

#include <nlohmann/json.hpp>

namespace dmc::model {
namespace {

constexpr auto kConfigKey = "quantization_config";

// What one group of modules says of its weights. How it would round activations does not matter:
// here they stay as they are.
void expect_int8_rows(const JsonFields& weights) {
  weights.expect("num_bits", 8);
  weights.expect("type", "int");
  weights.expect("symmetric", true);
  weights.expect("strategy", "channel");
}

}  // namespace

std::set<std::string> int8_matrices(const DecoderLayout& layout) {
  std::set<std::string> names;
  const auto add = [&](const LinearSource& source) {
    if (source.present() && !source.transposed) names.insert(source.weight);
  };
  for (const LayerLayout& l : layout.layers) {
    for (const LinearSource& source : {l.q, l.k, l.v, l.o, l.gate, l.up, l.down}) add(source);
  }
  if (names.empty()) return names;  // of a family whose layers are stored transposed
  add(layout.head_transform);
  add(layout.head);
  names.erase(layout.token_embedding);
  return names;
}

bool read_int8_weights(const JsonFields& fields) {
  if (!fields.has(kConfigKey)) return false;
  const JsonFields config = fields.object(kConfigKey);
  config.expect("quant_method", "compressed-tensors");
  const std::string format = config.text("format");
  if (format != "int-quantized" && format != "naive-quantized") {
    throw config.wrong("format", "\"int-quantized\" or \"naive-quantized\"");
  }
  const JsonFields groups = config.object("config_groups");
  for (const auto& [name, group] : config.at("config_groups").items()) {
    expect_int8_rows(groups.object(name).object("weights"));
  }
  return true;
}

nlohmann::ordered_json int8_quantization(const DecoderLayout& layout) {
  using json = nlohmann::ordered_json;
  const json weights = {{"num_bits", 8},
                        {"type", "int"},
                        {"symmetric", true},
                        {"strategy", "channel"},
                        {"dynamic", false},
                        {"group_size", nullptr},
                        {"block_structure", nullptr},
                        {"actorder", nullptr}};
  const json group = {{"targets", json::array({"Linear"})},
                      {"format", "int-quantized"},
                      {"weights", weights},
                      {"input_activations", nullptr},
                      {"output_activations", nullptr}};
  const bool tied = layout.head.weight == layout.token_embedding;
  return {{"quant_method", "compressed-tensors"},
          {"format", "int-quantized"},
          {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", tied ? json::array({layout.head_module}) : json::array()},
          {"kv_cache_scheme", nullptr}};
}

}  // namespace dmc::model

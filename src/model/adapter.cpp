#include "model/adapter.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "model/config_file.h"
#include "model/families/layout_builder.h"
#include "model/flat_dms.h"

namespace dmc::model {
namespace {

// "model.layers.0.self_attn." of "model.layers.0.self_attn.q_proj.weight".
std::string attention_module(const LayerLayout& layer) {
  const std::string& name = layer.q.weight;
  const size_t end_of_projection = name.rfind('.');
  return name.substr(0, name.rfind('.', end_of_projection - 1) + 1);
}

constexpr auto kMetadataKey = "dmc_config";

model::DmcConfig read_metadata(const model::SafetensorsFile& file, const std::string& origin) {
  const auto found = file.metadata().find(kMetadataKey);
  if (found == file.metadata().end()) {
    throw data_error(origin +
                     ": its metadata has no dmc_config; expected an adapter.safetensors "
                     "of `dmc retrofit --decisions adapter`");
  }
  const nlohmann::json json = parse_json(found->second, origin);
  const JsonFields fields(json, origin + ", dmc_config");
  fields.expect("decision_source", "adapter");
  return read_dmc_config(fields);
}

}  // namespace

void add_adapters(const model::ModelConfig& config, DecoderLayout* layout) {
  LayoutBuilder build(layout);
  const bool flat = config.dmc->flat_keys;
  for (LayerLayout& layer : layout->layers) {
    const std::string module = attention_module(layer);
    layer.decision_norm =
        build.rms_norm(module + (flat ? kFlatDmsNorm : "decision_norm"), config.hidden_size);
    layer.decision_proj =
        build.linear(module + (flat ? kFlatDmsProjection : "decision_proj"),
                     config.adapter_outputs(), config.hidden_size, /*bias=*/false);
  }
}

void require_adaptable(const model::ModelConfig& base) {
  if (!base.has_decision_channel() && !base.has_query_channel()) return;
  throw invalid_argument(
      "an adapter needs a base model that knows all of its channels, and in this one a channel of "
      "each head decides already (decision_channel in its dmc_config); take the dense model, or "
      "what `dmc convert --plain` makes of this one");
}

std::set<std::string> adapter_tensors(const DecoderLayout& layout) {
  std::set<std::string> names;
  for (const LayerLayout& layer : layout.layers) {
    if (!layer.decision_proj.present()) continue;
    names.insert({layer.decision_norm.weight, layer.decision_proj.weight});
  }
  return names;
}

AdapterFile::AdapterFile(const std::filesystem::path& path)
    : origin_(path.string()), file_(path), dmc_(read_metadata(file_, origin_)) {}

std::map<std::string, std::string> AdapterFile::metadata(const model::DmcConfig& dmc) {
  return {{kMetadataKey, dmc_config_json(dmc).dump()}};
}

model::ModelConfig AdapterFile::applied_to(model::ModelConfig base) const {
  require_adaptable(base);
  base.dmc = dmc_;
  base.architecture = find_family(base.model_type)->dmc_architecture;
  return base;
}

}  // namespace dmc::model

// The adapter, a source of decisions beside the model: in each layer a small projection of what
// enters attention. The base model's weights know nothing of it.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "model/families/family.h"
#include "model/safetensors.h"

namespace dmc::model {

// Adds the adapter of each layer to a layout, named after the module of the layer's query
// projection: model.layers.0.self_attn.decision_norm.weight [hidden] and
// model.layers.0.self_attn.decision_proj.weight [config.adapter_outputs(), hidden].
void add_adapters(const model::ModelConfig& config, DecoderLayout* layout);

// The names of all adapters' tensors; none for a layout without.
std::set<std::string> adapter_tensors(const DecoderLayout& layout);

// Error(kInvalidArgument) if a channel of the model decides already, which attention then does not
// know.
void require_adaptable(const model::ModelConfig& base);

// An adapter by itself: a safetensors file of kilobytes with the tensors named above, and in its
// metadata the dmc_config that the model has with it.
class AdapterFile {
 public:
  // Error(kData) for a damaged file or one that is no adapter's.
  explicit AdapterFile(const std::filesystem::path& path);
  // What the metadata of such a file holds.
  static std::map<std::string, std::string> metadata(const model::DmcConfig& dmc);

  // `base` with this adapter; Error(kInvalidArgument) if a channel of the base decides already.
  model::ModelConfig applied_to(model::ModelConfig base) const;
  const model::TensorMap& tensors() const { return file_.tensors(); }
  const std::string& origin() const { return origin_; }  // for messages
  void require_whole() const { file_.require_whole(); }

 private:
  std::string origin_;
  model::SafetensorsFile file_;
  model::DmcConfig dmc_;
};

}  // namespace dmc::model

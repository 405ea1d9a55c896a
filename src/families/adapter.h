// The adapter, a source of decisions beside the model: in each layer a small projection of what
// enters attention. The base model's weights know nothing of it.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "families/family.h"
#include "io/safetensors.h"

namespace dmc::families {

// Adds the adapter of each layer to a layout, named after the module of the layer's query
// projection: model.layers.0.self_attn.decision_norm.weight [hidden] and
// model.layers.0.self_attn.decision_proj.weight [config.adapter_outputs(), hidden].
void add_adapters(const io::ModelConfig& config, DecoderLayout* layout);

// The names of all adapters' tensors; none for a layout without.
std::set<std::string> adapter_tensors(const DecoderLayout& layout);

// Error(kUsage) if a channel of the model decides already, which attention then does not know.
void require_adaptable(const io::ModelConfig& base);

// An adapter by itself: a safetensors file of kilobytes with the tensors named above, and in its
// metadata the dmc_config that the model has with it.
class AdapterFile {
 public:
  // Error(kData) for a damaged file or one that is no adapter's.
  explicit AdapterFile(const std::filesystem::path& path);
  // What the metadata of such a file holds.
  static std::map<std::string, std::string> metadata(const io::DmcConfig& dmc);

  // `base` with this adapter; Error(kUsage) if a channel of the base decides already.
  io::ModelConfig applied_to(io::ModelConfig base) const;
  const io::TensorMap& tensors() const { return file_.tensors(); }
  const std::string& origin() const { return origin_; }  // for messages

 private:
  std::string origin_;
  io::SafetensorsFile file_;
  io::DmcConfig dmc_;
};

}  // namespace dmc::families

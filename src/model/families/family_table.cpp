#include <array>

#include "base/error.h"
#include "model/adapter.h"
#include "model/families/family.h"

namespace dmc::model {

std::span<const Family> families() {
  static const std::array kFamilies = {kLlama, kMistral, kQwen2, kQwen3, kPhi3, kGpt2, kBert};
  return kFamilies;
}

const Family* find_family(std::string_view model_type) {
  for (const Family& family : families()) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

DecoderLayout decoder_layout(const model::ModelConfig& config) {
  const Family* family = find_family(config.model_type);
  DMC_CHECK(family != nullptr);
  DecoderLayout layout = family->layout(config);
  if (config.has_adapter()) add_adapters(config, &layout);
  return layout;
}

double parameter_count(const DecoderLayout& layout) {
  double total = 0.0;
  for (const auto& [name, shape] : layout.shapes) {
    double count = 1.0;
    for (int64_t size : shape) count *= static_cast<double>(size);
    total += count;
  }
  return total;
}

}  // namespace dmc::model

#include "nn/adapter.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "model/adapter.h"

namespace dmc::nn {

Decoder with_adapter(const Decoder& base, const model::DmcConfig& dmc) {
  model::require_adaptable(base.config());
  model::ModelConfig config = base.config();
  config.dmc = dmc;
  config.dmc->decision_source = "adapter";
  const model::DecoderLayout layout = model::decoder_layout(config);
  std::map<std::string, at::Tensor> parameters = base.parameters();
  const at::Device device = parameters.begin()->second.device();
  for (const model::LayerLayout& layer : layout.layers) {
    const std::string &norm = layer.decision_norm.weight, &proj = layer.decision_proj.weight;
    parameters[norm] = at::ones(layout.shapes.at(norm), device);
    parameters[proj] = at::zeros(layout.shapes.at(proj), device);
  }
  return Decoder(config, std::move(parameters));
}

Decoder without_adapter(const Decoder& model) {
  model::ModelConfig config = model.config();
  DMC_CHECK(config.has_adapter());
  config.dmc.reset();
  std::map<std::string, at::Tensor> parameters = model.parameters();
  for (const std::string& name : model::adapter_tensors(model.layout())) parameters.erase(name);
  return Decoder(config, std::move(parameters));
}

void scale_adapter(Decoder& model, double factor) {
  const at::NoGradGuard no_grad;
  for (const model::LayerLayout& layer : model.layout().layers) {
    model.parameter(layer.decision_proj.weight).mul_(factor);
  }
}

void save_adapter(const Decoder& model, const std::filesystem::path& path) {
  nn::TensorsByName tensors;
  for (const std::string& name : model::adapter_tensors(model.layout())) {
    tensors[name] = model.parameter(name).detach().cpu();
  }
  model::write_safetensors(path, nn::to_views(tensors),
                           model::AdapterFile::metadata(*model.config().dmc));
}

}  // namespace dmc::nn

#include "nn/decision_channel.h"

#include <ATen/core/grad_mode.h>

namespace dmc::nn {
namespace {

void scale_rows(const Decoder& model, const model::LinearSource& source, double factor) {
  const int64_t d = model.config().head_dim, heads = source.rows / d;
  model.weight(source).unflatten(0, {heads, d}).select(1, d - 1).mul_(factor);
  if (!source.bias.empty()) model.bias(source).view({heads, d}).select(1, d - 1).mul_(factor);
}

}  // namespace

void clear_decision_channel(Decoder& model) {
  const at::NoGradGuard no_grad;
  for (const model::LayerLayout& layer : model.layout().layers) {
    scale_rows(model, layer.q, 0.0);
    scale_rows(model, layer.k, 0.0);
    for (const model::NormSource& norm : {layer.q_norm, layer.k_norm}) {
      if (norm.present()) model.parameter(norm.weight)[-1].fill_(1.0);
    }
  }
}

void scale_decision_channel(Decoder& model, double factor) {
  const at::NoGradGuard no_grad;
  for (const model::LayerLayout& layer : model.layout().layers) {
    if (layer.q_norm.present()) {
      model.parameter(layer.q_norm.weight)[-1].mul_(factor);
      model.parameter(layer.k_norm.weight)[-1].mul_(factor);
    } else {
      scale_rows(model, layer.q, factor);
      scale_rows(model, layer.k, factor);
    }
  }
}

}  // namespace dmc::nn

#include "nn/decoder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <set>
#include <utility>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/config_file.h"

namespace dmc::nn {
namespace {

using model::DecoderLayout;
using model::LayerLayout;
using model::LinearSource;
using model::NormSource;

std::set<std::string> norm_weights(const DecoderLayout& layout) {
  std::set<std::string> names = {layout.embedding_norm.weight, layout.final_norm.weight,
                                 layout.head_norm.weight};
  for (const LayerLayout& layer : layout.layers) {
    for (const NormSource& norm :
         {layer.attention_norm, layer.mlp_norm, layer.q_norm, layer.k_norm, layer.decision_norm})
      names.insert(norm.weight);
  }
  return names;
}

std::set<std::string> matrices_into_residual(const DecoderLayout& layout) {
  std::set<std::string> names;
  for (const LayerLayout& layer : layout.layers) {
    names.insert(layer.o.weight);
    names.insert(layer.down.weight);
  }
  return names;
}

// A slice's backward pass writes a gradient of the whole tensor, so the whole is not sliced.
at::Tensor rows_of(const at::Tensor& stored, const LinearSource& source) {
  if (stored.size(0) == source.rows) return stored;
  return stored.narrow(0, source.first, source.rows);
}

at::Tensor read_parameter(const model::Checkpoint& checkpoint, const std::string& name,
                          const std::vector<int64_t>& shape, at::ScalarType dtype) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  checkpoint.matrix(name)->read_all(tensor.mutable_data_ptr<float>());
  return tensor.to(dtype);
}

}  // namespace

Decoder::Decoder(const model::ModelConfig& config, std::map<std::string, at::Tensor> parameters)
    : config_(config), layout_(model::decoder_layout(config)), parameters_(std::move(parameters)) {
  for (const auto& [name, shape] : layout_.shapes) {
    const auto found = parameters_.find(name);
    DMC_CHECK(found != parameters_.end() && found->second.sizes() == shape);
  }
}

Decoder Decoder::load(const std::filesystem::path& dir, at::ScalarType dtype) {
  model::ModelConfig config = model::read_model_config(dir);
  const model::Checkpoint checkpoint(dir, model::decoder_layout(config));
  config.int8_weights = false;  // in memory there are none
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, shape] : checkpoint.layout().shapes) {
    parameters[name] = read_parameter(checkpoint, name, shape, dtype);
  }
  checkpoint.require_whole();
  return {config, std::move(parameters)};
}

Decoder Decoder::create(const model::ModelConfig& config, uint64_t seed) {
  const DecoderLayout layout = model::decoder_layout(config);
  const std::set<std::string> norms = norm_weights(layout);
  const std::set<std::string> residual = matrices_into_residual(layout);
  const double residual_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(config.num_layers));
  at::Generator generator = nn::generator(seed);
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, shape] : layout.shapes) {
    if (shape.size() == 1) {
      parameters[name] = norms.contains(name) ? at::ones(shape) : at::zeros(shape);
      continue;
    }
    const double deviation = 0.02 * (residual.contains(name) ? residual_scale : 1.0);
    parameters[name] = at::randn(shape, generator) * deviation;
  }
  return {config, std::move(parameters)};
}

void Decoder::save(const std::filesystem::path& dir, const nn::WeightForm& form) const {
  model::ModelConfig config = config_;
  config.int8_weights = !form.int8.empty();
  nn::save_model(dir, model::model_config_json(config, nn::float_type_name(form.dtype)),
                 parameters_, form);
}

void Decoder::place(const nn::Placement& placement) {
  for (auto& [name, parameter] : parameters_) parameter = parameter.to(placement.device);
  products_ = placement.products;
}

int64_t Decoder::parameter_count() const {
  int64_t count = 0;
  for (const auto& [name, parameter] : parameters_) count += parameter.numel();
  return count;
}

at::Tensor Decoder::weight(const LinearSource& source) const {
  const at::Tensor& stored = parameters_.at(source.weight);
  return rows_of(source.transposed ? stored.t() : stored, source);
}

at::Tensor Decoder::bias(const LinearSource& source) const {
  return source.bias.empty() ? at::Tensor() : rows_of(parameters_.at(source.bias), source);
}

at::Tensor Decoder::operand(const at::Tensor& x) const {
  return x.defined() && products_ ? x.to(*products_) : x;
}

at::Tensor Decoder::linear(const at::Tensor& x, const LinearSource& source) const {
  return at::linear(operand(x), operand(weight(source)), operand(bias(source)));
}

at::Tensor Decoder::norm(const at::Tensor& x, const NormSource& source) const {
  if (!source.present()) return x;
  const std::array<int64_t, 1> width = {x.size(-1)};
  const at::Tensor& scale = parameters_.at(source.weight);
  const at::Tensor wide = x.to(scale.scalar_type());
  if (config_.norm == model::NormKind::kRms)
    return at::rms_norm(wide, width, scale, config_.norm_eps);
  return at::layer_norm(wide, width, scale, parameters_.at(source.bias), config_.norm_eps);
}

at::Tensor Decoder::embed(const at::Tensor& tokens_BT, const at::Tensor& positions_BT) const {
  at::Tensor x_BTD = at::embedding(parameters_.at(layout_.token_embedding), tokens_BT);
  if (config_.learned_positions) {
    const at::Tensor positions =
        positions_BT.defined() ? positions_BT : at::arange(tokens_BT.size(1), tokens_BT.options());
    x_BTD = x_BTD + at::embedding(parameters_.at(layout_.position_embedding), positions);
  }
  if (config_.token_types > 0) x_BTD = x_BTD + parameters_.at(layout_.token_type_embedding)[0];
  return norm(x_BTD, layout_.embedding_norm);
}

at::Tensor Decoder::decisions(const LayerLayout& layer, const at::Tensor& x_BTD) const {
  if (!layer.decision_proj.present()) return {};
  const at::Tensor& scale = parameters_.at(layer.decision_norm.weight);
  return at::linear(at::rms_norm(x_BTD, {x_BTD.size(-1)}, scale, config_.norm_eps),
                    weight(layer.decision_proj));  // few outputs, in which digits count
}

at::Tensor Decoder::attention_block(int64_t layer, const at::Tensor& x_BTD,
                                    const at::Tensor& decisions_BTR,
                                    nn::AttentionStrategy& attention) const {
  const LayerLayout& l = layout_.layers[static_cast<size_t>(layer)];
  const auto heads = [&](const LinearSource& source, int64_t count) {
    return linear(x_BTD, source).unflatten(-1, at::IntArrayRef{count, config_.head_dim});
  };
  const at::Tensor mixed_BTHd =
      attention.attend(layer, {operand(norm(heads(l.q, config_.num_heads), l.q_norm)),
                               operand(norm(heads(l.k, config_.num_kv_heads), l.k_norm)),
                               heads(l.v, config_.num_kv_heads), decisions_BTR});
  return linear(mixed_BTHd.flatten(2), l.o);
}

at::Tensor Decoder::mlp_block(const LayerLayout& layer, const at::Tensor& x_BTD) const {
  const at::Tensor up = linear(x_BTD, layer.up);
  const at::Tensor active = config_.activation == model::Activation::kSiluGated
                                ? at::silu(linear(x_BTD, layer.gate)) * up
                                : gelu(up);
  return linear(active, layer.down);
}

at::Tensor Decoder::gelu(const at::Tensor& x) const {
  return at::gelu(x, config_.activation == model::Activation::kGeluTanh ? "tanh" : "none");
}

at::Tensor Decoder::hidden(const at::Tensor& tokens_BT, nn::AttentionStrategy& attention,
                           const at::Tensor& positions_BT) const {
  const auto residual = [&](const at::Tensor& x, const NormSource& source, const auto& block) {
    return config_.post_norm ? norm(x + block(operand(x)), source)
                             : x + block(operand(norm(x, source)));
  };
  at::Tensor x_BTD = embed(tokens_BT, positions_BT);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const LayerLayout& layer = layout_.layers[static_cast<size_t>(i)];
    const at::Tensor decisions_BTR = decisions(layer, x_BTD);
    x_BTD = residual(x_BTD, layer.attention_norm, [&](const at::Tensor& x) {
      return attention_block(i, x, decisions_BTR, attention);
    });
    x_BTD =
        residual(x_BTD, layer.mlp_norm, [&](const at::Tensor& x) { return mlp_block(layer, x); });
  }
  return norm(x_BTD, layout_.final_norm);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  if (!layout_.head_transform.present()) return linear(hidden, layout_.head);
  const at::Tensor transformed = gelu(linear(hidden, layout_.head_transform));
  return linear(norm(transformed, layout_.head_norm), layout_.head);
}

}  // namespace dmc::nn

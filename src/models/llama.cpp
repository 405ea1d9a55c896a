#include "models/llama.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>

#include <array>
#include <utility>

#include "base/error.h"
#include "io/safetensors.h"
#include "nn/weights.h"

namespace dmc::models {
namespace {

constexpr auto kEmbedding = "model.embed_tokens.weight";
constexpr auto kFinalNorm = "model.norm.weight";
constexpr auto kHead = "lm_head.weight";

// Every parameter of the architecture: its Hugging Face name and shape.
std::map<std::string, std::vector<int64_t>> parameter_shapes(const io::ModelConfig& c) {
  const int64_t q_rows = c.num_heads * c.head_dim;
  const int64_t kv_rows = c.num_kv_heads * c.head_dim;
  std::map<std::string, std::vector<int64_t>> shapes = {
      {kEmbedding, {c.vocab_size, c.hidden_size}},
      {kFinalNorm, {c.hidden_size}},
  };
  if (!c.tie_embeddings) shapes[kHead] = {c.vocab_size, c.hidden_size};
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    shapes[layer + "input_layernorm.weight"] = {c.hidden_size};
    shapes[layer + "self_attn.q_proj.weight"] = {q_rows, c.hidden_size};
    shapes[layer + "self_attn.k_proj.weight"] = {kv_rows, c.hidden_size};
    shapes[layer + "self_attn.v_proj.weight"] = {kv_rows, c.hidden_size};
    shapes[layer + "self_attn.o_proj.weight"] = {c.hidden_size, q_rows};
    shapes[layer + "post_attention_layernorm.weight"] = {c.hidden_size};
    shapes[layer + "mlp.gate_proj.weight"] = {c.intermediate_size, c.hidden_size};
    shapes[layer + "mlp.up_proj.weight"] = {c.intermediate_size, c.hidden_size};
    shapes[layer + "mlp.down_proj.weight"] = {c.hidden_size, c.intermediate_size};
  }
  return shapes;
}

bool writes_to_residual(const std::string& name) {
  return name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
}

}  // namespace

Llama::Llama(const io::ModelConfig& config, std::map<std::string, at::Tensor> parameters)
    : config_(config), parameters_(std::move(parameters)) {
  embedding_ = parameters_.at(kEmbedding);
  final_norm_ = parameters_.at(kFinalNorm);
  head_ = config.tie_embeddings ? embedding_ : parameters_.at(kHead);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const auto get = [&](const std::string& name) {
      return parameters_.at("model.layers." + std::to_string(i) + "." + name + ".weight");
    };
    layers_.push_back({get("input_layernorm"), get("self_attn.q_proj"), get("self_attn.k_proj"),
                       get("self_attn.v_proj"), get("self_attn.o_proj"),
                       get("post_attention_layernorm"), get("mlp.gate_proj"), get("mlp.up_proj"),
                       get("mlp.down_proj")});
  }
}

Llama Llama::load(const std::filesystem::path& dir, at::ScalarType dtype) {
  const io::ModelConfig config = io::read_model_config(dir);
  const io::WeightsDirectory weights(dir);
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    parameters[name] = nn::to_tensor(weights.require(name, shape), dtype);
  }
  return {config, std::move(parameters)};
}

Llama Llama::create(const io::ModelConfig& config, uint64_t seed) {
  at::Generator generator = nn::generator(seed);
  const double residual_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(config.num_layers));
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    if (shape.size() == 1) {
      parameters[name] = at::ones(shape);
      continue;
    }
    const double deviation = 0.02 * (writes_to_residual(name) ? residual_scale : 1.0);
    parameters[name] = at::randn(shape, generator) * deviation;
  }
  return {config, std::move(parameters)};
}

void Llama::save(const std::filesystem::path& dir, at::ScalarType dtype) const {
  nn::save_model(dir, io::model_config_json(config_), parameters_, dtype);
}

at::Tensor Llama::hidden(const at::Tensor& tokens_BT, nn::AttentionStrategy& attention) const {
  const int64_t B = tokens_BT.size(0), T = tokens_BT.size(1);
  const std::array<int64_t, 1> width = {config_.hidden_size};
  const auto norm = [&](const at::Tensor& x, const at::Tensor& weight) {
    return at::rms_norm(x, width, weight, config_.rms_norm_eps);
  };
  const auto heads = [&](const at::Tensor& x, int64_t count) {
    return x.view({B, T, count, config_.head_dim});
  };

  at::Tensor x_BTD = at::embedding(embedding_, tokens_BT);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const Layer& layer = layers_[static_cast<size_t>(i)];
    const at::Tensor normed = norm(x_BTD, layer.input_norm);
    const at::Tensor mixed =
        attention.attend(i, heads(at::linear(normed, layer.q), config_.num_heads),
                         heads(at::linear(normed, layer.k), config_.num_kv_heads),
                         heads(at::linear(normed, layer.v), config_.num_kv_heads));
    x_BTD = x_BTD + at::linear(mixed.reshape({B, T, -1}), layer.o);

    const at::Tensor mlp_in = norm(x_BTD, layer.post_norm);
    const at::Tensor gated =
        at::silu(at::linear(mlp_in, layer.gate)) * at::linear(mlp_in, layer.up);
    x_BTD = x_BTD + at::linear(gated, layer.down);
  }
  return norm(x_BTD, final_norm_);
}

at::Tensor Llama::logits(const at::Tensor& hidden) const { return at::linear(hidden, head_); }

}  // namespace dmc::models

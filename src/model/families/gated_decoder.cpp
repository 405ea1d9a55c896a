#include "model/families/gated_decoder.h"

#include <array>

#include "model/config_keys.h"
#include "model/families/layout_builder.h"

namespace dmc::model {
namespace {

constexpr SizeKey kSizes[] = {
    {"vocab_size", &model::ModelConfig::vocab_size},
    {"hidden_size", &model::ModelConfig::hidden_size},
    {"intermediate_size", &model::ModelConfig::intermediate_size},
    {"num_hidden_layers", &model::ModelConfig::num_layers, kMostLayers},
    {"num_attention_heads", &model::ModelConfig::num_heads},
    {"max_position_embeddings", &model::ModelConfig::max_positions, kMostPositions},
};

void add_norms(const model::ModelConfig& c, const std::string& layer, LayoutBuilder& build,
               LayerLayout* result) {
  result->attention_norm = build.rms_norm(layer + "input_layernorm", c.hidden_size);
  result->mlp_norm = build.rms_norm(layer + "post_attention_layernorm", c.hidden_size);
  if (c.qk_norm) {
    result->q_norm = build.rms_norm(layer + "self_attn.q_norm", c.head_dim);
    result->k_norm = build.rms_norm(layer + "self_attn.k_norm", c.head_dim);
  }
}

void separate_matrices(const model::ModelConfig& c, const std::string& layer, LayoutBuilder& build,
                       LayerLayout* result) {
  const int64_t q_rows = c.num_heads * c.head_dim, kv_rows = c.num_kv_heads * c.head_dim;
  const bool bias = c.attention_bias;
  result->q = build.linear(layer + "self_attn.q_proj", q_rows, c.hidden_size, bias);
  result->k = build.linear(layer + "self_attn.k_proj", kv_rows, c.hidden_size, bias);
  result->v = build.linear(layer + "self_attn.v_proj", kv_rows, c.hidden_size, bias);
  result->o = build.linear(layer + "self_attn.o_proj", c.hidden_size, q_rows, false);
  result->gate = build.linear(layer + "mlp.gate_proj", c.intermediate_size, c.hidden_size, false);
  result->up = build.linear(layer + "mlp.up_proj", c.intermediate_size, c.hidden_size, false);
  result->down = build.linear(layer + "mlp.down_proj", c.hidden_size, c.intermediate_size, false);
}

}  // namespace

void read_gated_decoder(const JsonFields& fields, model::ModelConfig* config) {
  read_sizes(fields, kSizes, config);
  config->activation =
      read_activation(fields, "hidden_act", std::array{model::Activation::kSiluGated});
  fields.refuse_unless("attention_bias", false);
  fields.refuse_unless("mlp_bias", false);
  // Defaults that transformers documents for keys that older checkpoints lack.
  config->num_kv_heads = fields.size_or("num_key_value_heads", config->num_heads);
  config->head_dim = fields.has("head_dim") ? fields.size("head_dim")
                                            : even_head_dim(fields, "num_attention_heads", *config);
  config->tie_embeddings = fields.boolean_or("tie_word_embeddings", false);
  config->norm_eps = fields.positive("rms_norm_eps");
  config->rope = read_rope(fields);
}

void write_gated_decoder(const model::ModelConfig& config, nlohmann::ordered_json* root) {
  write_sizes(config, kSizes, root);
  (*root)["hidden_act"] = activation_name(config.activation);
  (*root)["num_key_value_heads"] = config.num_kv_heads;
  (*root)["head_dim"] = config.head_dim;
  (*root)["rms_norm_eps"] = config.norm_eps;
  write_rope(*config.rope, root);
}

DecoderLayout gated_decoder_layout(const model::ModelConfig& c, LayerMatrices add_matrices) {
  DecoderLayout layout;
  LayoutBuilder build(&layout);
  layout.token_embedding = build.table("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    LayerLayout& result = layout.layers.emplace_back();
    add_norms(c, layer, build, &result);
    add_matrices(c, layer, build, &result);
  }
  layout.final_norm = build.rms_norm("model.norm", c.hidden_size);
  layout.head = build.head("lm_head", c);
  return layout;
}

DecoderLayout gated_decoder_layout(const model::ModelConfig& config) {
  return gated_decoder_layout(config, separate_matrices);
}

}  // namespace dmc::model

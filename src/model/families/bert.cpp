// BERT as a decoder (BertLMHeadModel with is_decoder): LayerNorm after each block, learned
// positions, a token-type embedding, and a transform before the head. As an encoder it attends in
// both directions and keeps no cache.
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
    {"type_vocab_size", &model::ModelConfig::token_types},
};

void read(const JsonFields& fields, model::ModelConfig* config) {
  if (!fields.boolean_or("is_decoder", false)) {
    throw data_error(fields.origin() +
                     ": this BERT is an encoder, which has no KV cache to compress; expected a "
                     "decoder, a BertLMHeadModel with \"is_decoder\": true");
  }
  read_sizes(fields, kSizes, config);
  config->activation = read_activation(
      fields, "hidden_act", std::array{model::Activation::kGelu, model::Activation::kGeluTanh});
  fields.refuse_unless("add_cross_attention", false);
  fields.refuse_unless("position_embedding_type", "absolute");
  fields.refuse_unless("tie_word_embeddings", true);
  config->num_kv_heads = config->num_heads;
  config->head_dim = even_head_dim(fields, "num_attention_heads", *config);
  config->norm = model::NormKind::kLayer;
  config->norm_eps = fields.positive("layer_norm_eps");
  config->post_norm = true;
  config->rope.reset();
  config->learned_positions = true;
  config->tie_embeddings = true;
}

void write(const model::ModelConfig& config, nlohmann::ordered_json* root) {
  write_sizes(config, kSizes, root);
  (*root)["is_decoder"] = true;
  (*root)["hidden_act"] = activation_name(config.activation);
  (*root)["layer_norm_eps"] = config.norm_eps;
}

LayerLayout layer_layout(const model::ModelConfig& c, const std::string& layer,
                         LayoutBuilder& build) {
  const int64_t D = c.hidden_size;
  LayerLayout result;
  result.q = build.linear(layer + "attention.self.query", D, D, true);
  result.k = build.linear(layer + "attention.self.key", D, D, true);
  result.v = build.linear(layer + "attention.self.value", D, D, true);
  result.o = build.linear(layer + "attention.output.dense", D, D, true);
  result.attention_norm = build.layer_norm(layer + "attention.output.LayerNorm", D);
  result.up = build.linear(layer + "intermediate.dense", c.intermediate_size, D, true);
  result.down = build.linear(layer + "output.dense", D, c.intermediate_size, true);
  result.mlp_norm = build.layer_norm(layer + "output.LayerNorm", D);
  return result;
}

DecoderLayout layout(const model::ModelConfig& c) {
  const int64_t D = c.hidden_size;
  const std::string embeddings = "bert.embeddings.", head = "cls.predictions.";
  DecoderLayout result;
  LayoutBuilder build(&result);
  result.older_names = {{"LayerNorm.weight", "LayerNorm.gamma"},
                        {"LayerNorm.bias", "LayerNorm.beta"}};
  result.token_embedding = build.table(embeddings + "word_embeddings.weight", c.vocab_size, D);
  result.position_embedding =
      build.table(embeddings + "position_embeddings.weight", c.max_positions, D);
  result.token_type_embedding =
      build.table(embeddings + "token_type_embeddings.weight", c.token_types, D);
  result.embedding_norm = build.layer_norm(embeddings + "LayerNorm", D);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    result.layers.push_back(
        layer_layout(c, "bert.encoder.layer." + std::to_string(i) + ".", build));
  }
  result.head_transform = build.linear(head + "transform.dense", D, D, true);
  result.head_norm = build.layer_norm(head + "transform.LayerNorm", D);
  result.head = build.head(head + "decoder", c);
  result.head.bias = build.vector(head + "bias", c.vocab_size);
  return result;
}

}  // namespace

constinit const Family kBert = {
    "bert", "BertLMHeadModel", "DmcBertLMHeadModel", read, write, layout, /*grouped_queries=*/false,
};

}  // namespace dmc::model

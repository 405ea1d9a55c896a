// GPT-2: LayerNorm before each block, learned positions, a plain MLP; matrices are stored as
// [in, out], those of q, k and v as one.
#include <array>

#include "model/config_keys.h"
#include "model/families/layout_builder.h"

namespace dmc::model {
namespace {

constexpr SizeKey kSizes[] = {
    {"vocab_size", &model::ModelConfig::vocab_size},
    {"n_embd", &model::ModelConfig::hidden_size},
    {"n_layer", &model::ModelConfig::num_layers, kMostLayers},
    {"n_head", &model::ModelConfig::num_heads},
    {"n_positions", &model::ModelConfig::max_positions, kMostPositions},
};

void read(const JsonFields& fields, model::ModelConfig* config) {
  read_sizes(fields, kSizes, config);
  config->activation =
      read_activation(fields, "activation_function",
                      std::array{model::Activation::kGeluTanh, model::Activation::kGelu});
  fields.refuse_unless("scale_attn_weights", true);
  fields.refuse_unless("scale_attn_by_inverse_layer_idx", false);
  fields.refuse_unless("add_cross_attention", false);
  config->intermediate_size = fields.size_or("n_inner", 4 * config->hidden_size);
  config->num_kv_heads = config->num_heads;
  config->head_dim = even_head_dim(fields, "n_head", *config);
  config->norm = model::NormKind::kLayer;
  config->norm_eps = fields.positive("layer_norm_epsilon");
  config->rope.reset();
  config->learned_positions = true;
  config->tie_embeddings = fields.boolean_or("tie_word_embeddings", true);
}

void write(const model::ModelConfig& config, nlohmann::ordered_json* root) {
  write_sizes(config, kSizes, root);
  (*root)["activation_function"] = activation_name(config.activation);
  // null, as in published files, where it has the size that null stands for.
  (*root)["n_inner"] = nullptr;
  if (config.intermediate_size != 4 * config.hidden_size) {
    (*root)["n_inner"] = config.intermediate_size;
  }
  (*root)["layer_norm_epsilon"] = config.norm_eps;
}

LayerLayout layer_layout(const model::ModelConfig& c, const std::string& layer,
                         LayoutBuilder& build) {
  const int64_t D = c.hidden_size;
  const LinearSource qkv = build.conv1d(layer + "attn.c_attn", 3 * D, D);
  LayerLayout result;
  result.attention_norm = build.layer_norm(layer + "ln_1", D);
  result.mlp_norm = build.layer_norm(layer + "ln_2", D);
  result.q = rows_of(qkv, 0, D);
  result.k = rows_of(qkv, D, D);
  result.v = rows_of(qkv, 2 * D, D);
  result.o = build.conv1d(layer + "attn.c_proj", D, D);
  result.up = build.conv1d(layer + "mlp.c_fc", c.intermediate_size, D);
  result.down = build.conv1d(layer + "mlp.c_proj", D, c.intermediate_size);
  return result;
}

DecoderLayout layout(const model::ModelConfig& c) {
  DecoderLayout result;
  LayoutBuilder build(&result);
  result.older_names = {{"transformer.", ""}};  // as the original files have them
  result.token_embedding = build.table("transformer.wte.weight", c.vocab_size, c.hidden_size);
  result.position_embedding = build.table("transformer.wpe.weight", c.max_positions, c.hidden_size);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    result.layers.push_back(layer_layout(c, "transformer.h." + std::to_string(i) + ".", build));
  }
  result.final_norm = build.layer_norm("transformer.ln_f", c.hidden_size);
  result.head = build.head("lm_head", c);
  return result;
}

}  // namespace

constinit const Family kGpt2 = {
    "gpt2", "GPT2LMHeadModel", "DmcGPT2LMHeadModel", read, write, layout, /*grouped_queries=*/false,
};

}  // namespace dmc::model

// Phi-3, 3.5 and 4: Llama whose matrices of q, k and v are stored as one, those of gate and up too.
#include "model/families/gated_decoder.h"
#include "model/families/layout_builder.h"

namespace dmc::model {
namespace {

void read(const JsonFields& fields, model::ModelConfig* config) {
  read_gated_decoder(fields, config);
  if (fields.has("sliding_window")) config->sliding_window = fields.size("sliding_window");
}

void fused_matrices(const model::ModelConfig& c, const std::string& layer, LayoutBuilder& build,
                    LayerLayout* result) {
  const int64_t q_rows = c.num_heads * c.head_dim, kv_rows = c.num_kv_heads * c.head_dim;
  const int64_t D = c.hidden_size, M = c.intermediate_size;
  const LinearSource qkv =
      build.linear(layer + "self_attn.qkv_proj", q_rows + 2 * kv_rows, D, /*bias=*/false);
  result->q = rows_of(qkv, 0, q_rows);
  result->k = rows_of(qkv, q_rows, kv_rows);
  result->v = rows_of(qkv, q_rows + kv_rows, kv_rows);
  result->o = build.linear(layer + "self_attn.o_proj", D, q_rows, /*bias=*/false);
  const LinearSource gate_up = build.linear(layer + "mlp.gate_up_proj", 2 * M, D, /*bias=*/false);
  result->gate = rows_of(gate_up, 0, M);
  result->up = rows_of(gate_up, M, M);
  result->down = build.linear(layer + "mlp.down_proj", D, M, /*bias=*/false);
}

DecoderLayout layout(const model::ModelConfig& config) {
  return gated_decoder_layout(config, fused_matrices);
}

}  // namespace

constinit const Family kPhi3 = {
    "phi3",
    "Phi3ForCausalLM",
    "DmcPhi3ForCausalLM",
    read,
    write_gated_decoder,
    layout,
    /*grouped_queries=*/true,
};

}  // namespace dmc::model

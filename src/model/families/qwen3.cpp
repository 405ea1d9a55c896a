// Qwen3: Llama with an RMSNorm on each head of q and k.
#include "model/config_keys.h"
#include "model/families/gated_decoder.h"

namespace dmc::model {
namespace {

void read(const JsonFields& fields, model::ModelConfig* config) {
  read_gated_decoder(fields, config);
  config->qk_norm = true;
  config->sliding_window = read_optional_window(fields);
}

}  // namespace

constinit const Family kQwen3 = {
    "qwen3",
    "Qwen3ForCausalLM",
    "DmcQwen3ForCausalLM",
    read,
    write_gated_decoder,
    gated_decoder_layout,
    /*grouped_queries=*/true,
};

}  // namespace dmc::model

// Qwen3: Llama with an RMSNorm on each head of q and k.
#include "families/config_keys.h"
#include "families/gated_decoder.h"

namespace dmc::families {
namespace {

void read(const io::JsonFields& fields, io::ModelConfig* config) {
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

}  // namespace dmc::families

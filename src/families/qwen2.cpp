// Qwen2 and 2.5: Llama with biases on q, k and v.
#include "families/config_keys.h"
#include "families/gated_decoder.h"

namespace dmc::families {
namespace {

void read(const io::JsonFields& fields, io::ModelConfig* config) {
  read_gated_decoder(fields, config);
  config->attention_bias = true;
  config->sliding_window = read_optional_window(fields);
}

}  // namespace

constinit const Family kQwen2 = {
    "qwen2",
    "Qwen2ForCausalLM",
    "DmcQwen2ForCausalLM",
    read,
    write_gated_decoder,
    gated_decoder_layout,
    /*grouped_queries=*/true,
};

}  // namespace dmc::families

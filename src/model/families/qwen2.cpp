// Qwen2 and 2.5: Llama with biases on q, k and v.
#include "model/config_keys.h"
#include "model/families/gated_decoder.h"

namespace dmc::model {
namespace {

void read(const JsonFields& fields, model::ModelConfig* config) {
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

}  // namespace dmc::model

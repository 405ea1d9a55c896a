// Mistral: Llama with attention that reaches back a limited number of tokens.
#include "model/families/gated_decoder.h"

namespace dmc::model {
namespace {

void read(const JsonFields& fields, model::ModelConfig* config) {
  read_gated_decoder(fields, config);
  if (fields.has("sliding_window")) config->sliding_window = fields.size("sliding_window");
}

}  // namespace

constinit const Family kMistral = {
    "mistral",           "MistralForCausalLM", "DmcMistralForCausalLM",  read,
    write_gated_decoder, gated_decoder_layout, /*grouped_queries=*/true,
};

}  // namespace dmc::model

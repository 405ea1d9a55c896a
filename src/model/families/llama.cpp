// Llama 2 and 3, and what shares their architecture: TinyLlama, SmolLM.
#include "model/families/gated_decoder.h"

namespace dmc::model {

constinit const Family kLlama = {
    "llama",
    "LlamaForCausalLM",
    "DmcLlamaForCausalLM",
    read_gated_decoder,
    write_gated_decoder,
    gated_decoder_layout,
    /*grouped_queries=*/true,
};

}  // namespace dmc::model

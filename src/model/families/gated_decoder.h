// What Llama, Mistral and Qwen share: RMSNorm before each block, rotary attention with grouped
// queries, an MLP gated by SiLU, and the names of keys and tensors.
#pragma once

#include "model/families/family.h"

namespace dmc::model {

void read_gated_decoder(const JsonFields& fields, model::ModelConfig* config);
void write_gated_decoder(const model::ModelConfig& config, nlohmann::ordered_json* root);
DecoderLayout gated_decoder_layout(const model::ModelConfig& config);

}  // namespace dmc::model

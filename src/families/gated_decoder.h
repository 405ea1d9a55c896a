// What Llama, Mistral and Qwen share: RMSNorm before each block, rotary attention with grouped
// queries, an MLP gated by SiLU, and the names of keys and tensors.
#pragma once

#include "families/family.h"

namespace dmc::families {

void read_gated_decoder(const io::JsonFields& fields, io::ModelConfig* config);
void write_gated_decoder(const io::ModelConfig& config, nlohmann::ordered_json* root);
DecoderLayout gated_decoder_layout(const io::ModelConfig& config);

}  // namespace dmc::families

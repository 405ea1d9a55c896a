// What Llama, Mistral, Qwen and Phi-3 share: RMSNorm before each block, rotary attention with
// grouped queries, an MLP gated by SiLU, and the names of keys and tensors.
#pragma once

#include "model/families/family.h"
#include "model/families/layout_builder.h"

namespace dmc::model {

void read_gated_decoder(const JsonFields& fields, model::ModelConfig* config);
void write_gated_decoder(const model::ModelConfig& config, nlohmann::ordered_json* root);
DecoderLayout gated_decoder_layout(const model::ModelConfig& config);

// Where the matrices of a layer stand: `layer` begins the names of its tensors.
using LayerMatrices = void (*)(const model::ModelConfig& config, const std::string& layer,
                               LayoutBuilder& build, LayerLayout* result);
DecoderLayout gated_decoder_layout(const model::ModelConfig& config, LayerMatrices add_matrices);

}  // namespace dmc::model

// Model families as a table: what a family's config.json says, and where each matrix of the decoder
// stands in its checkpoint. A new family is one file and one line in family_table.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json_fields.h"
#include "model/model_config.h"

namespace dmc::model {

// A matrix of the decoder, [rows, columns] = [out, in], as part of a checkpoint tensor: rows
// first..first+rows-1 of it, or of its transpose.
struct LinearSource {
  std::string weight;       // name in the checkpoint; "": the family has no such matrix
  std::string bias;         // the same rows of a vector; "": none
  bool transposed = false;  // stored as [in, out]
  int64_t first = 0, rows = 0, columns = 0;

  bool present() const { return !weight.empty(); }
};

struct NormSource {
  std::string weight, bias;  // "": none

  bool present() const { return !weight.empty(); }
};

// The norms stand before their block, or with ModelConfig::post_norm after its residual sum.
struct LayerLayout {
  NormSource attention_norm, mlp_norm;
  NormSource q_norm, k_norm;  // [head_dim], with ModelConfig::qk_norm
  LinearSource q, k, v, o;
  LinearSource gate;  // with Activation::kSiluGated
  LinearSource up, down;
  // With ModelConfig::has_adapter(): decisions = decision_proj(rms_norm(x)), x what enters the
  // attention block, before the block's own norm.
  NormSource decision_norm;    // [hidden]
  LinearSource decision_proj;  // [adapter_outputs, hidden]
};

struct DecoderLayout {
  std::string token_embedding;
  std::string position_embedding;    // "" without learned positions
  std::string token_type_embedding;  // ""; else row 0 is added to every token
  NormSource embedding_norm;
  std::vector<LayerLayout> layers;
  NormSource final_norm;
  // Logits are head(x), or head(head_norm(activation(head_transform(x)))).
  LinearSource head_transform;
  NormSource head_norm;
  LinearSource head;        // a tied one names the token embedding
  std::string head_module;  // what the head is called as a module, tied or not

  std::map<std::string, std::vector<int64_t>> shapes;  // of every tensor of the checkpoint
  // Parts of names and what older checkpoints have instead, e.g. {"LayerNorm.bias",
  // "LayerNorm.beta"}.
  std::vector<std::pair<std::string, std::string>> older_names;
};

struct Family {
  std::string_view model_type;          // in config.json
  std::string_view dense_architecture;  // likewise, for the model as published
  std::string_view dmc_architecture;    // of a retrofitted one, so that nobody else runs it wrongly
  // Reads the family's keys; Error(kData) naming a key that is missing, wrong or asks for something
  // not implemented.
  void (*read)(const JsonFields& fields, model::ModelConfig* config);
  // Writes the keys that depend on `config`; the others stay as they were read.
  void (*write)(const model::ModelConfig& config, nlohmann::ordered_json* root);
  DecoderLayout (*layout)(const model::ModelConfig& config);
  bool grouped_queries;  // its config.json can say num_key_value_heads
};

std::span<const Family> families();                      // family_table.cpp
const Family* find_family(std::string_view model_type);  // null if there is none of that type

// The layout of the model that `config` describes, its adapter's tensors included; its model_type
// must be in the table.
DecoderLayout decoder_layout(const model::ModelConfig& config);

// Numbers in the checkpoint, a tied head not counted twice; exact up to 2^53. (A hostile
// config.json can ask for more than fits into 64 bits.)
double parameter_count(const DecoderLayout& layout);

// One for each family.
extern const Family kLlama, kMistral, kQwen2, kQwen3, kPhi3, kGpt2, kBert;

}  // namespace dmc::model

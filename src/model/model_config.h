// What a decoder-only transformer is made of, whatever its family, and the `dmc_config` object this
// project adds. families/config_file.h reads it from a config.json and writes it back.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/learned.h"

namespace dmc::model {

// What a DMC checkpoint says about itself: the nested object "dmc_config" in config.json.
struct DmcConfig {
  double target_cr = 1.0;          // compression ratio it was trained for
  int64_t window = 12;             // tokens of a segment that its slot averages; 0: all of them
  double decision_offset = 5.0;    // c in the decision and importance logits
  std::string stage = "dense";     // training stage it stopped after: zero-out, retrofit, finetune
  int64_t trained_tokens = 0;      // tokens seen during the retrofit
  int64_t max_trained_length = 0;  // longest sequence seen during the retrofit
  std::string method = "dmc";      // the policy it was trained for, one with needs_dmc_config
  // What says of a token how to decide: "neuron", the last channel of each head of q and k, which
  // attention then does not see; "adapter", a projection beside the attention of each layer; or
  // "query" (docs/formats.md), the last channel of the first query head of each group, which
  // attention sees neither before nor behind the rotary embedding.
  std::string decision_source = "neuron";
  double decision_scale = 1.0;  // of the decision's logit

  int64_t delay = 0;  // newest tokens that are raw, with a policy that is `delayed`
  // c in the importance logits; absent: the same.
  std::optional<double> importance_offset = {};

  // What models from the published Megatron code do in another way (docs/formats.md):
  double importance_epsilon = FLT_EPSILON;  // added to the importance, so that it is never 0
  // The decision channel is 0 behind the rotary embedding, too, which otherwise turns a part of its
  // partner, channel d/2 - 1, into it.
  bool zero_after_rope = false;
  // config.json says all this in the flat keys of NVIDIA's Model-Optimizer (model/flat_dms.h).
  bool flat_keys = false;

  bool pools() const;  // tokens share slots, so each needs a weight
  policy::LearnedConstants constants() const;
  // The key of config.json for whose sake the model can be run but not trained; null: it can be.
  const char* only_runs() const;
};

enum class NormKind { kRms, kLayer };
enum class Activation {
  kSiluGated,  // down(silu(gate(x)) * up(x))
  kGelu,       // down(gelu(up(x)))
  kGeluTanh,   // the same with the tanh approximation of gelu
};

// Rotary embedding: channel pair i turns by position * theta^(-2i/d), slowed by `scaling`.
struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;  // kLinear, kLlama3: how much slower
  // kLlama3: pairs that turn more than high_freq_factor times within original_positions keep their
  // speed, those that turn less than low_freq_factor times are slowed, between them it is blended.
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  int64_t original_positions = 0;
};

struct ModelConfig {
  std::string architecture;          // as in config.json, e.g. "DmcLlamaForCausalLM"
  std::string model_type = "llama";  // the family, see families/family.h
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  std::optional<int64_t> sliding_window;  // tokens that attention reaches back, the newest included

  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  bool post_norm = false;  // normed after a block's residual sum instead of before the block
  Activation activation = Activation::kSiluGated;
  std::optional<RopeConfig> rope = RopeConfig{};  // absent: keys and queries are not rotated
  bool learned_positions = false;                 // an embedding for each of max_positions
  bool qk_norm = false;         // q and k are normed a head at a time, before rotary embedding
  bool attention_bias = false;  // of q, k and v where the family leaves it open
  int64_t token_types = 0;      // rows of the token-type embedding, of which row 0 is used
  bool tie_embeddings = false;
  bool int8_weights = false;  // the files hold matrices in 8 bits, see families/quantization.h

  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;
  std::optional<DmcConfig> dmc;  // absent: a dense model
  std::string source_json;       // the object as read, so that unknown keys survive a round trip

  int64_t group_size() const { return num_heads / num_kv_heads; }
  bool has_adapter() const { return dmc && dmc->decision_source == "adapter"; }
  bool has_decision_channel() const { return dmc && dmc->decision_source == "neuron"; }
  bool has_query_channel() const { return dmc && dmc->decision_source == "query"; }
  // Of one layer's adapter: the decision of each KV head, then, if tokens share slots, the
  // importance of each. Needs has_adapter().
  int64_t adapter_outputs() const { return num_kv_heads * (dmc->pools() ? 2 : 1); }
  // The longest text this program runs: there is no sliding window here, so what the model knows
  // with its window is known here as long as the text fits into it.
  int64_t context() const {
    return sliding_window ? std::min(max_positions, *sliding_window) : max_positions;
  }
};

// Error(kInvalidArgument) naming `field` if a text of so many tokens is longer than the context.
void require_context(const ModelConfig& config, const std::string& field, int64_t tokens);

// The token that separates documents; Error(kData), naming the config.json in `dir`, if the model
// has none.
int32_t document_separator(const ModelConfig& config, const std::filesystem::path& dir);

}  // namespace dmc::model

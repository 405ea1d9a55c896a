#include "model/gguf/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/dtype.h"
#include "base/json_fields.h"
#include "model/config_keys.h"
#include "model/gguf/gguf_architecture.h"
#include "model/model_config.h"
#include "model/rope_frequencies.h"

namespace dmc::model {
namespace {

using nlohmann::ordered_json;

// Files hold f32 where config.json has a short decimal number: 1e-05, not 9.999999747378752e-06.
double short_decimal(double value) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, static_cast<float>(value)).ptr;
  double result = value;
  std::from_chars(digits, end, result);
  return result;
}

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file), architecture_(gguf_architecture(file)) {}

  ordered_json read() {
    refuse_what_is_unknown();
    architecture_.model_type == "gpt2" ? read_gpt2() : read_gated_decoder();
    root_["vocab_size"] = token_embedding().shape[0];
    root_["tie_word_embeddings"] = !file_.tensors().contains("output.weight");
    read_token("bos_token_id", "tokenizer.ggml.bos_token_id");
    read_token("eos_token_id", "tokenizer.ggml.eos_token_id");
    return root_;
  }

 private:
  std::string key(std::string_view name) const { return gguf_key(architecture_, name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  int64_t size(std::string_view name) const { return gguf_size(file_, architecture_, name); }
  int64_t size_or(std::string_view name, int64_t otherwise) const {
    return has(name) ? size(name) : otherwise;
  }
  double positive(std::string_view name) const {
    const double value = file_.number(key(name));
    if (!(value > 0)) throw file_.wrong(key(name), "a positive number");
    return short_decimal(value);
  }

  const GgufTensor& token_embedding() const {
    const auto found = file_.tensors().find("token_embd.weight");
    if (found != file_.tensors().end() && found->second.shape.size() == 2) return found->second;
    throw data_error(file_.origin() + ": tensor token_embd.weight is missing or no matrix");
  }

  void refuse_what_is_unknown() const {
    for (const char* name : {"expert_count", "logit_scale", "attention.logit_softcapping"}) {
      if (has(name) && file_.number(key(name)) != 0)
        throw file_.wrong(key(name), "0 or no such key");
    }
    if (has("use_parallel_residual") && file_.boolean(key("use_parallel_residual"))) {
      throw file_.wrong(key("use_parallel_residual"), "false");
    }
  }

  void read_names(const char* model_type, const char* class_name) {
    root_["architectures"] = {class_name};
    root_["model_type"] = model_type;
  }

  void read_gpt2() {
    read_names("gpt2", "GPT2LMHeadModel");
    const int64_t hidden = size("embedding_length"), inner = size("feed_forward_length");
    root_["n_embd"] = hidden;
    root_["n_layer"] = size("block_count");
    root_["n_head"] = size("attention.head_count");
    root_["n_positions"] = size("context_length");
    root_["n_inner"] = nullptr;
    if (inner != 4 * hidden) root_["n_inner"] = inner;
    root_["activation_function"] = "gelu_new";
    root_["layer_norm_epsilon"] = positive("attention.layer_norm_epsilon");
  }

  void read_gated_decoder() {
    read_class();
    const int64_t hidden = size("embedding_length"), heads = size("attention.head_count");
    root_["hidden_size"] = hidden;
    root_["intermediate_size"] = size("feed_forward_length");
    root_["num_hidden_layers"] = size("block_count");
    root_["num_attention_heads"] = heads;
    root_["num_key_value_heads"] = size_or("attention.head_count_kv", heads);
    const int64_t head_dim = size_or("attention.key_length", std::max<int64_t>(1, hidden / heads));
    if (size_or("attention.value_length", head_dim) != head_dim) {
      throw file_.wrong(key("attention.value_length"), "what attention.key_length says");
    }
    root_["head_dim"] = head_dim;
    root_["max_position_embeddings"] = size("context_length");
    root_["hidden_act"] = "silu";
    root_["rms_norm_eps"] = positive("attention.layer_norm_rms_epsilon");
    read_rope(head_dim);
  }

  // A llama that looks back a limited number of tokens is a Mistral.
  void read_class() {
    const bool window =
        has("attention.sliding_window") && file_.number(key("attention.sliding_window")) > 0;
    if (architecture_.model_type == "qwen2") {
      read_names("qwen2", "Qwen2ForCausalLM");
    } else if (architecture_.model_type == "qwen3") {
      read_names("qwen3", "Qwen3ForCausalLM");
    } else if (architecture_.model_type == "phi3") {
      read_names("phi3", "Phi3ForCausalLM");
    } else {
      read_names(window ? "mistral" : "llama", window ? "MistralForCausalLM" : "LlamaForCausalLM");
    }
    if (!window) return;
    root_["sliding_window"] = size("attention.sliding_window");
    if (architecture_.model_type != "llama") root_["use_sliding_window"] = true;
  }

  void read_rope(int64_t head_dim) {
    if (size_or("rope.dimension_count", head_dim) != head_dim) {
      throw file_.wrong(key("rope.dimension_count"),
                        "the size of a head, " + std::to_string(head_dim));
    }
    RopeConfig rope;
    if (has("rope.freq_base")) rope.theta = positive("rope.freq_base");
    const auto factors = file_.tensors().find("rope_freqs.weight");
    if (factors != file_.tensors().end()) {
      rope = llama3_rope(rope.theta, head_dim, factors->second);
    } else {
      read_linear_scaling(&rope);
    }
    write_rope(rope, &root_);
  }

  void read_linear_scaling(RopeConfig* rope) const {
    const char* const factor_key =
        has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
    const std::string type = has("rope.scaling.type") ? file_.text(key("rope.scaling.type"))
                             : has(factor_key)        ? "linear"
                                                      : "none";
    if (type == "none") return;
    if (type != "linear") throw file_.wrong(key("rope.scaling.type"), "none or linear");
    rope->factor = positive(factor_key);
    if (rope->factor != 1.0) rope->scaling = RopeConfig::Scaling::kLinear;
  }

  // Llama 3.1's scaling is stored as what each frequency is divided by. The settings that made the
  // factors are looked for: the largest is `factor`, and the others are what all of Llama's
  // releases have.
  RopeConfig llama3_rope(double theta, int64_t head_dim, const GgufTensor& tensor) const {
    std::vector<float> factors(static_cast<size_t>(head_dim / 2));
    const bool fits =
        tensor.type->name == "F32" && tensor.shape == std::vector<int64_t>{head_dim / 2};
    if (fits) widen_floats(tensor.bytes.data(), head_dim / 2, DType::kF32, factors.data());
    ModelConfig config;
    config.head_dim = head_dim;
    config.rope = RopeConfig{.theta = theta};
    const std::vector<double> plain = rope_frequencies(config);
    RopeConfig rope{.theta = theta,
                    .scaling = RopeConfig::Scaling::kLlama3,
                    .factor = fits ? short_decimal(factors.back()) : 0.0,
                    .low_freq_factor = 1.0,
                    .high_freq_factor = 4.0,
                    .original_positions = 8192};
    config.rope = rope;
    bool same = fits && rope.factor >= 1.0;
    const std::vector<double> scaled = rope_frequencies(config);
    for (size_t i = 0; same && i < factors.size(); ++i) {
      same = std::abs(factors[i] * scaled[i] / plain[i] - 1.0) < 1e-3;
    }
    if (same) return rope;
    throw data_error(file_.origin() +
                     ": tensor rope_freqs.weight is not Llama 3's scaling of rotary frequencies "
                     "(original context 8192, factors 1 and 4), the only one known here");
  }

  void read_token(const char* name, const char* gguf_name) {
    if (file_.has(gguf_name)) root_[name] = file_.size(gguf_name, 0, kLargestSize);
  }

  const GgufFile& file_;
  const GgufArchitecture& architecture_;
  ordered_json root_ = ordered_json::object();
};

}  // namespace

ordered_json gguf_config(const GgufFile& file) { return Reader(file).read(); }

}  // namespace dmc::model

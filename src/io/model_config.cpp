#include "io/model_config.h"

#include <limits>

#include "base/error.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace dmc::io {
namespace {

using nlohmann::json;

constexpr auto kDenseArchitecture = "LlamaForCausalLM";
constexpr auto kDmcArchitecture = "DmcLlamaForCausalLM";
constexpr int64_t kLargestSize = int64_t{1} << 24;  // of any one dimension of a model
constexpr int64_t kLargestHead = 4096;
constexpr int64_t kMostTokens = std::numeric_limits<int64_t>::max();

// Reads keys of one JSON object; every complaint names the file and the key.
class Fields {
 public:
  Fields(const json& object, std::string origin) : object_(object), origin_(std::move(origin)) {
    if (!object.is_object()) throw data_error(origin_ + ": not a JSON object");
  }

  bool has(const std::string& key) const {
    return object_.contains(key) && !object_.at(key).is_null();
  }
  const json& at(const std::string& key) const {
    if (!has(key)) throw data_error(origin_ + ": key \"" + key + "\" is missing");
    return object_.at(key);
  }
  int64_t size(const std::string& key, int64_t least = 1, int64_t most = kLargestSize) const {
    const json& value = at(key);
    if (!value.is_number_integer() || value < least || value > most) {
      throw wrong(key,
                  "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return value.get<int64_t>();
  }
  double positive(const std::string& key) const {
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0)) throw wrong(key, "a positive number");
    return value.get<double>();
  }
  bool boolean(const std::string& key) const {
    if (!at(key).is_boolean()) throw wrong(key, "true or false");
    return at(key).get<bool>();
  }
  std::string text(const std::string& key) const {
    if (!at(key).is_string()) throw wrong(key, "a string");
    return at(key).get<std::string>();
  }
  void expect(const std::string& key, const json& value) const {
    if (at(key) != value) throw wrong(key, value.dump());
  }
  // A feature we do not implement: absent, null or `neutral`, else refused.
  void refuse_unless(const std::string& key, const json& neutral) const {
    if (has(key)) expect(key, neutral);
  }
  Error wrong(const std::string& key, const std::string& expected) const {
    return data_error(origin_ + ": key \"" + key + "\" is " + object_.at(key).dump() +
                      ", expected " + expected);
  }
  const std::string& origin() const { return origin_; }

 private:
  const json& object_;
  std::string origin_;
};

std::string read_architecture(const Fields& fields) {
  const json& list = fields.at("architectures");
  if (!list.is_array() || list.size() != 1 || !list[0].is_string() ||
      (list[0] != kDenseArchitecture && list[0] != kDmcArchitecture)) {
    throw fields.wrong("architectures", std::string("[\"") + kDenseArchitecture + "\"] or [\"" +
                                            kDmcArchitecture + "\"]");
  }
  return list[0];
}

// transformers 5 moved the rotary settings into an object of their own; both forms are read.
double read_rope_theta(const Fields& fields) {
  fields.refuse_unless("rope_scaling", nullptr);
  if (!fields.has("rope_parameters")) return fields.positive("rope_theta");
  const Fields rope(fields.at("rope_parameters"), fields.origin() + ": rope_parameters");
  rope.refuse_unless("rope_type", "default");
  return rope.positive("rope_theta");
}

std::vector<int64_t> read_eos(const Fields& fields) {
  if (!fields.has("eos_token_id")) return {};
  const json& value = fields.at("eos_token_id");
  const json list = value.is_array() ? value : json::array({value});
  std::vector<int64_t> ids;
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{kLargestSize}) {
      throw fields.wrong("eos_token_id", "a token id, a list of them, or null");
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

DmcConfig read_dmc(const Fields& fields) {
  const Fields dmc(fields.at("dmc_config"), fields.origin() + ": dmc_config");
  dmc.expect("format", 1);
  dmc.expect("method", "dmc");
  dmc.expect("decision_channel", -1);
  dmc.expect("pool_before_rope", true);
  DmcConfig config;
  config.target_cr = dmc.positive("target_cr");
  config.window = dmc.size("window", 0, 1024);
  config.decision_offset = dmc.positive("decision_offset");
  config.stage = dmc.text("stage");
  config.trained_tokens = dmc.size("trained_tokens", 0, kMostTokens);
  config.max_trained_length = dmc.size("max_trained_length", 0);
  return config;
}

json to_json(const DmcConfig& dmc) {
  return {{"format", 1},
          {"method", "dmc"},
          {"target_cr", dmc.target_cr},
          {"window", dmc.window},
          {"decision_channel", -1},
          {"decision_offset", dmc.decision_offset},
          {"pool_before_rope", true},
          {"stage", dmc.stage},
          {"trained_tokens", dmc.trained_tokens},
          {"max_trained_length", dmc.max_trained_length}};
}

void require_consistent(const ModelConfig& config, const Fields& fields) {
  if (config.num_heads % config.num_kv_heads != 0) {
    throw fields.wrong("num_key_value_heads",
                       "a divisor of num_attention_heads " + std::to_string(config.num_heads));
  }
  if (config.head_dim % 2 != 0 || config.head_dim < 2 || config.head_dim > kLargestHead) {
    throw data_error(fields.origin() + ": head size " + std::to_string(config.head_dim) +
                     " (head_dim, or hidden_size / num_attention_heads), expected an even number "
                     "from 2 to " +
                     std::to_string(kLargestHead));
  }
  if ((config.architecture == kDmcArchitecture) != config.dmc.has_value()) {
    throw data_error(fields.origin() + ": architecture " + config.architecture +
                     (config.dmc ? " with" : " without") +
                     " a dmc_config object; they belong together");
  }
}

}  // namespace

ModelConfig read_model_config(const std::filesystem::path& dir) {
  const std::string origin = (dir / "config.json").string();
  ModelConfig config;
  config.source_json = read_text_file(origin, size_t{1} << 20);
  const json root = parse_json(config.source_json, origin);
  const Fields fields(root, origin);

  config.architecture = read_architecture(fields);
  config.model_type = fields.text("model_type");
  fields.expect("model_type", "llama");
  fields.expect("hidden_act", "silu");
  fields.refuse_unless("attention_bias", false);
  fields.refuse_unless("mlp_bias", false);
  config.vocab_size = fields.size("vocab_size");
  config.hidden_size = fields.size("hidden_size");
  config.intermediate_size = fields.size("intermediate_size");
  config.num_layers = fields.size("num_hidden_layers", 1, 10'000);
  config.num_heads = fields.size("num_attention_heads");
  config.num_kv_heads =
      fields.has("num_key_value_heads") ? fields.size("num_key_value_heads") : config.num_heads;
  config.head_dim =  // Hugging Face's documented default
      fields.has("head_dim") ? fields.size("head_dim", 1, kLargestHead)
                             : config.hidden_size / config.num_heads;
  config.max_positions = fields.size("max_position_embeddings");
  config.rope_theta = read_rope_theta(fields);
  config.rms_norm_eps = fields.positive("rms_norm_eps");
  config.tie_embeddings =
      fields.has("tie_word_embeddings") && fields.boolean("tie_word_embeddings");
  config.eos_token_ids = read_eos(fields);
  if (fields.has("bos_token_id")) config.bos_token_id = fields.size("bos_token_id", 0);
  if (fields.has("dmc_config")) config.dmc = read_dmc(fields);
  require_consistent(config, fields);
  return config;
}

std::string model_config_json(const ModelConfig& config) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!config.source_json.empty()) root = nlohmann::ordered_json::parse(config.source_json);
  root["architectures"] = {config.dmc ? kDmcArchitecture : kDenseArchitecture};
  root["model_type"] = "llama";
  root["hidden_act"] = "silu";
  root["vocab_size"] = config.vocab_size;
  root["hidden_size"] = config.hidden_size;
  root["intermediate_size"] = config.intermediate_size;
  root["num_hidden_layers"] = config.num_layers;
  root["num_attention_heads"] = config.num_heads;
  root["num_key_value_heads"] = config.num_kv_heads;
  root["head_dim"] = config.head_dim;
  root["max_position_embeddings"] = config.max_positions;
  if (!root.contains("rope_parameters")) root["rope_theta"] = config.rope_theta;
  root["rms_norm_eps"] = config.rms_norm_eps;
  root["tie_word_embeddings"] = config.tie_embeddings;
  root.erase("dmc_config");
  if (config.dmc) root["dmc_config"] = to_json(*config.dmc);
  return root.dump(2) + "\n";
}

}  // namespace dmc::io

#include "model/config_file.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/join.h"
#include "base/json.h"
#include "base/json_fields.h"
#include "model/families/family.h"
#include "model/flat_dms.h"
#include "model/gguf/gguf_config.h"
#include "model/quantization.h"
#include "policy/policy.h"

namespace dmc::model {
namespace {

using nlohmann::json;

constexpr int64_t kLargestHead = 4096;
constexpr double kLargestCr = 1e6;
constexpr int64_t kLargestRope = int64_t{1} << 28;  // positions times channels
constexpr int64_t kMostTokens = std::numeric_limits<int64_t>::max();

// What stands before the family's own model_type in a retrofitted model. Readers choose their code
// by that key, and those that do not know the method would run it wrongly without a word.
constexpr std::string_view kRetrofitted = "dmc_";

// Models retrofitted before the key had a value of its own have the family's.
const Family& read_family(const JsonFields& fields) {
  std::string_view type = fields.at("model_type").is_string()
                              ? fields.at("model_type").get_ref<const std::string&>()
                              : std::string_view();
  if (fields.has("dmc_config") && type.starts_with(kRetrofitted)) {
    type.remove_prefix(kRetrofitted.size());
  }
  const Family* family = find_family(type);
  if (family != nullptr) return *family;
  throw fields.wrong("model_type", "one of " + join(families(), ", ", &Family::model_type));
}

std::vector<std::string> architectures(const Family& family, const ModelConfig& config) {
  const std::string dense(family.dense_architecture);
  if (config.dmc && config.dmc->flat_keys) return {dense, flat_dms_architecture(dense)};
  return {dense, std::string(family.dmc_architecture)};
}

std::string read_architecture(const JsonFields& fields, const std::vector<std::string>& known) {
  const json& list = fields.at("architectures");
  const bool one = list.is_array() && list.size() == 1 && list[0].is_string();
  if (one && std::ranges::find(known, list[0].get<std::string>()) != known.end()) {
    return list[0];
  }
  throw fields.wrong("architectures", "[\"" + join(known, "\"] or [\"") + "\"]");
}

// A slot's mean of more tokens, or a longer delay, is none that this program serves.
constexpr int64_t kMostWindow = 1024, kMostDelay = int64_t{1} << 20;

const policy::Policy& read_method(const JsonFields& dmc) {
  const policy::Policy* const method = policy::find_policy(dmc.text("method"));
  if (method != nullptr && method->needs_dmc_config) return *method;
  std::vector<std::string> known;
  for (const policy::Policy& policy : policy::policies()) {
    if (policy.needs_dmc_config) known.push_back('"' + std::string(policy.name) + '"');
  }
  throw dmc.wrong("method", join(known, " or "));
}

// In files of methods that pool nothing the window is the delay.
void read_windows(const JsonFields& dmc, const policy::Policy& method, DmcConfig* config) {
  const bool pools = method.carry != policy::Carry::kNothing;
  if (pools) dmc.expect("pool_before_rope", true);
  config->window = pools ? dmc.size("window", 0, kMostWindow) : 1;
  if (!method.delayed) return;
  config->delay = dmc.size(pools ? "delay" : "window", 0, kMostDelay);
  dmc.refuse_unless("zero_after_rope", false);  // keys are rotated back when they join their slots
}

void write_windows(const DmcConfig& config, json* object) {
  const policy::Policy& method = *policy::find_policy(config.method);
  const bool pools = config.pools();
  (*object)["window"] = pools ? config.window : config.delay;
  if (pools && method.delayed) (*object)["delay"] = config.delay;
}

// Where decisions come from. Files that do not say so are older than adapters.
void read_decision_source(const JsonFields& dmc, DmcConfig* config) {
  if (dmc.has("decision_source")) config->decision_source = dmc.text("decision_source");
  if (config->decision_source == "adapter") {
    dmc.refuse_unless("zero_after_rope", false);  // there is no channel to be 0
  } else if (config->decision_source == "neuron") {
    dmc.expect("decision_channel", -1);
  } else {
    throw dmc.wrong("decision_source", "\"neuron\" or \"adapter\"");
  }
}

void require_consistent(const ModelConfig& config, const Family& family, const JsonFields& fields) {
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
  if (config.rope && config.max_positions * config.head_dim > kLargestRope) {
    throw data_error(fields.origin() + ": max_position_embeddings " +
                     std::to_string(config.max_positions) + " of heads of " +
                     std::to_string(config.head_dim) +
                     " make a rotary table of gigabytes, expected a product of 2^28 at most");
  }
  if (config.dmc && config.dmc->flat_keys) return;
  if ((config.architecture == family.dmc_architecture) != config.dmc.has_value()) {
    throw data_error(fields.origin() + ": architecture " + config.architecture +
                     (config.dmc ? " with" : " without") +
                     " a dmc_config object; they belong together");
  }
}

}  // namespace

DmcConfig read_dmc_config(const JsonFields& dmc) {
  dmc.expect("format", 1);
  DmcConfig config;
  read_decision_source(dmc, &config);
  const policy::Policy& method = read_method(dmc);
  config.method = method.name;
  read_windows(dmc, method, &config);
  config.target_cr = dmc.positive("target_cr");
  if (config.target_cr < 1.0 || config.target_cr > kLargestCr) {
    throw dmc.wrong("target_cr", "a number from 1 to 1000000");
  }
  config.decision_offset = dmc.positive("decision_offset");
  if (dmc.has("importance_offset")) config.importance_offset = dmc.number("importance_offset");
  config.stage = dmc.text("stage");
  config.trained_tokens = dmc.size("trained_tokens", 0, kMostTokens);
  config.max_trained_length = dmc.size("max_trained_length", 0);
  if (dmc.has("importance_epsilon")) {
    config.importance_epsilon = dmc.positive("importance_epsilon");
  }
  config.zero_after_rope = dmc.boolean_or("zero_after_rope", false);
  return config;
}

json dmc_config_json(const DmcConfig& dmc) {
  json object = {{"format", 1},
                 {"method", dmc.method},
                 {"target_cr", dmc.target_cr},
                 {"decision_offset", dmc.decision_offset},
                 {"pool_before_rope", true},
                 {"stage", dmc.stage},
                 {"trained_tokens", dmc.trained_tokens},
                 {"max_trained_length", dmc.max_trained_length}};
  write_windows(dmc, &object);
  if (dmc.importance_offset) object["importance_offset"] = *dmc.importance_offset;
  const DmcConfig usual;
  if (dmc.decision_source == usual.decision_source) {
    object["decision_channel"] = -1;
  } else {  // without the channel, so that programs that know no other source refuse the model
    object["decision_source"] = dmc.decision_source;
  }
  if (dmc.importance_epsilon != usual.importance_epsilon) {
    object["importance_epsilon"] = dmc.importance_epsilon;
  }
  if (dmc.zero_after_rope) object["zero_after_rope"] = true;
  return object;
}

ModelConfig read_model_config(const std::filesystem::path& model) {
  const bool gguf = is_gguf(model);
  const std::string origin = (gguf ? model : model / "config.json").string();
  ModelConfig config;
  config.source_json =
      gguf ? gguf_config(GgufFile(model)).dump() : read_text_file(origin, size_t{1} << 20);
  const json root = parse_json(config.source_json, origin);
  const JsonFields fields(root, origin);

  const Family& family = read_family(fields);
  config.model_type = family.model_type;
  family.read(fields, &config);
  config.eos_token_ids = fields.token_ids("eos_token_id");
  if (fields.has("bos_token_id")) config.bos_token_id = fields.size("bos_token_id", 0);
  config.int8_weights = read_int8_weights(fields);
  config.dmc = fields.has("dmc_config") ? read_dmc_config(fields.object("dmc_config"))
                                        : read_flat_dms(fields);
  config.architecture = read_architecture(fields, architectures(family, config));
  require_consistent(config, family, fields);
  return config;
}

std::string model_config_json(const ModelConfig& config, const std::string& weights_dtype) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!config.source_json.empty()) root = nlohmann::ordered_json::parse(config.source_json);
  const Family* family = find_family(config.model_type);
  DMC_CHECK(family != nullptr);
  const bool flat = config.dmc && config.dmc->flat_keys;  // is written as it was read
  if (!flat) {
    erase_flat_dms(&root);
    root["architectures"] = {config.dmc ? family->dmc_architecture : family->dense_architecture};
    root["model_type"] =
        std::string(config.dmc ? kRetrofitted : "") + std::string(family->model_type);
  }
  family->write(config, &root);
  root["tie_word_embeddings"] = config.tie_embeddings;
  if (!weights_dtype.empty()) {  // transformers 4 and 5 call it differently
    root[root.contains("torch_dtype") ? "torch_dtype" : "dtype"] = weights_dtype;
  }
  root.erase("quantization_config");
  if (config.int8_weights) root["quantization_config"] = int8_quantization(decoder_layout(config));
  root.erase("dmc_config");
  if (config.dmc && !flat) root["dmc_config"] = dmc_config_json(*config.dmc);
  return root.dump(2) + "\n";
}

}  // namespace dmc::model

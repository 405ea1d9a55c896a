#include "model/flat_dms.h"

#include <array>

namespace dmc::model {
namespace {

constexpr const char* kWindow = "dms_window_size";
// Of these, one is enough to tell the form; the defaults are those of the published classes.
constexpr double kUsualScale = 100.0, kUsualOffset = 5.0, kUsualRatio = 8.0;
constexpr int64_t kUsualWindow = 512, kMostWindow = int64_t{1} << 20;

// Settings of the published program that change nothing of what is computed.
constexpr std::array kOthers = {"dms_paged_attention_block_size",
                                "dms_tau",
                                "dms_compile_limit",
                                "dms_manual_inference_mode",
                                "dms_chunked_prefill",
                                "dms_preallocate_for_tokens"};
constexpr std::array kDecisions = {kWindow,
                                   "dms_alpha_scale",
                                   "dms_initial_alpha_offset",
                                   "dms_cr",
                                   "dms_separate_alpha",
                                   "dms_alpha_per",
                                   "dms_disable_eviction"};

bool is_flat(const JsonFields& fields) {
  for (const char* key : kDecisions) {
    if (fields.has(key)) return true;
  }
  return false;
}

double positive_or(const JsonFields& fields, const char* key, double usual) {
  return fields.has(key) ? fields.positive(key) : usual;
}

}  // namespace

std::optional<DmcConfig> read_flat_dms(const JsonFields& fields) {
  if (!is_flat(fields)) return std::nullopt;
  if (fields.boolean_or("dms_disable_eviction", false)) {
    throw fields.wrong("dms_disable_eviction",
                       "false (a policy may be named at the start instead)");
  }
  if (fields.has("dms_alpha_per") && fields.text("dms_alpha_per") != "head") {
    throw fields.wrong("dms_alpha_per", "\"head\", a decision for each KV head");
  }
  DmcConfig config{.flat_keys = true};
  config.method = "dms";
  config.stage = "finetune";
  config.window = 1;
  config.delay = fields.has(kWindow) ? fields.size(kWindow, 0, kMostWindow) : kUsualWindow;
  config.decision_source = fields.boolean_or("dms_separate_alpha", false) ? "adapter" : "query";
  config.decision_scale = positive_or(fields, "dms_alpha_scale", kUsualScale);
  config.decision_offset = positive_or(fields, "dms_initial_alpha_offset", kUsualOffset);
  config.target_cr = positive_or(fields, "dms_cr", kUsualRatio);
  return config;
}

std::string flat_dms_architecture(std::string_view dense_architecture) {
  return std::string(dense_architecture) + "DMS";
}

void erase_flat_dms(nlohmann::ordered_json* root) {
  for (const char* key : kDecisions) root->erase(key);
  for (const char* key : kOthers) root->erase(key);
  root->erase("auto_map");  // of code that only the published form needs
}

}  // namespace dmc::model

#include "model/config_file.h"

#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 200};

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("config.json", data, size);
    dmc::model::model_config_json(dmc::model::read_model_config(dir));
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  const auto filled = [](const std::string& key) {
    return [key](size_t n) {
      std::string text = "{\"model_type\":\"llama\"";
      for (size_t i = 0; text.size() < n; ++i) text += ",\"" + key + std::to_string(i) + "\":[{}]";
      return text + "}";
    };
  };
  return {{"unknown keys", filled("k")},
          {"layer types", [](size_t n) {
             std::string text = R"({"model_type":"qwen2","layer_types":["full_attention")";
             while (text.size() < n) text += ",\"full_attention\"";
             return text + "]}";
           }}};
}

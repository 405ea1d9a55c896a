// generation_config.json and tokenizer_config.json, beside a tokenizer that is whole.
#include "tests/fuzz/target.h"
#include "text/chat_template.h"
#include "text/generation_config.h"
#include "text/tokenizer/tokenizer_config.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 300};

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const dmc::text::Tokenizer tokenizer("models/builtin");
  for (const char* name : {"generation_config.json", "tokenizer_config.json"}) {
    const auto& dir = dmc::fuzz::directory_with(name, data, size);
    dmc::fuzz::accept_errors([&] {
      for (int64_t id : dmc::text::reply_stop_ids(dir, tokenizer)) DMC_CHECK(id >= 0);
    });
    dmc::fuzz::accept_errors([&] {
      const auto config = dmc::text::read_tokenizer_config(dir);
      for (const auto& token : config.added) DMC_CHECK(token.id >= 0);
    });
    dmc::fuzz::accept_errors([&] { dmc::text::ChatTemplate::find(dir); });
    std::filesystem::remove(dir / name);
  }
  return 0;
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"ends of a text",
           [](size_t n) {
             std::string text = "{\"eos_token_id\": [0";
             while (text.size() < n) text += ",1";
             return text + "]}";
           }},
          {"added tokens", [](size_t n) {
             std::string text = "{\"added_tokens_decoder\": {";
             for (size_t i = 0; text.size() < n; ++i) {
               const std::string id = std::to_string(i);
               text += (i > 0 ? ",\"" : "\"") + id + "\":{\"content\":\"<" + id + ">\"}";
             }
             return text + "}}";
           }}};
}

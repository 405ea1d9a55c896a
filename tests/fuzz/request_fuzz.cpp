// The body of a request, to what the engine is asked (server/text_request.h).
#include "base/json.h"
#include "server/text_request.h"
#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

namespace {

const dmc::server::ServedModel& model() {
  static const auto value = [] {
    dmc::server::ServedModel served{"fake", "fake", 0,
                                    300,    2048,   dmc::text::Tokenizer("models/builtin")};
    served.chat.emplace(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ extra }}", "template");
    served.eos_ids = served.reply_ids = {0};
    return served;
  }();
  return value;
}

}  // namespace

// What is let through is in the ranges that the engine relies on.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto where : {dmc::server::Endpoint::kCompletions, dmc::server::Endpoint::kChat}) {
    dmc::fuzz::accept_errors([&] {
      const nlohmann::json body = dmc::parse_json(text, "the body");
      const auto request = dmc::server::read_text_request(body, where, model(), 256);
      const auto& options = request.engine;
      dmc::engine::check_sampling_options(options.sampling);
      DMC_CHECK(options.choices >= 1 && options.choices <= 16 && options.max_tokens >= 0);
      DMC_CHECK(!request.prompts.empty() && request.prompts.size() <= 256);
      DMC_CHECK(options.logprobs.value_or(0) <= 20 && options.prompt_logprobs.value_or(0) <= 20);
      DMC_CHECK(request.stops.size() <= 16);
      for (const auto& prompt : request.prompts) {
        DMC_CHECK(!prompt.empty() && std::ssize(prompt) + options.max_tokens <= 300);
        for (int32_t id : prompt) DMC_CHECK(id >= 0 && id < 2048);
      }
      for (const std::string& stop : request.stops) DMC_CHECK(!stop.empty());
    });
  }
  return 0;
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"tokens of a prompt",
           [](size_t n) {
             std::string text = "{\"prompt\": [1";
             while (text.size() < n) text += ",1";
             return text + "]}";
           }},
          {"prompts",
           [](size_t n) {
             std::string text = "{\"prompt\": [\"a\"";
             while (text.size() < n) text += ",\"a\"";
             return text + "]}";
           }},
          {"one prompt", [](size_t n) { return "{\"prompt\": \"" + std::string(n, 'a') + "\"}"; }},
          {"unknown fields",
           [](size_t n) {
             std::string text = "{\"prompt\": \"a\"";
             for (size_t i = 0; text.size() < n; ++i) text += ",\"k" + std::to_string(i) + "\":0";
             return text + "}";
           }},
          {"messages", [](size_t n) {
             std::string text = R"({"messages": [{"role": "user", "content": "a"})";
             while (text.size() < n) text += R"(,{"role": "user", "content": "a"})";
             return text + "]}";
           }}};
}

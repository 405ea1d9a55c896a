#include "base/utf8.h"
#include "tests/fuzz/target.h"
#include "text/chat_template.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

namespace {

const nlohmann::ordered_json& messages() {
  static const auto value = nlohmann::ordered_json::parse(R"([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Hi é {{ x }} <|im_end|> "},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdefghi", "type": "function",
      "function": {"name": "f", "arguments": {"a": [1, 2.5, true, null], "b": {"c": "d"}}}}]},
    {"role": "tool", "content": {"x": 1}}, {"role": "user", "content": "<think>\n</think> so?"}])");
  return value;
}

}  // namespace

// The text is valid UTF-8, and what is marked lies in it, in order.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const std::string source(reinterpret_cast<const char*>(data), size);
    dmc::text::ChatTemplate chat(source, "template");
    chat.set_trusted("bos_token", "<s>");
    chat.set_trusted("eos_token", "</s>");
    const auto prompt = chat.render(messages(), true, {{"tools", messages()}});
    DMC_CHECK(dmc::utf8_is_valid(prompt.text));
    size_t end = 0;
    for (const auto& range : prompt.untrusted) {
      DMC_CHECK(range.begin >= end && range.begin < range.end);
      end = range.end;
    }
    DMC_CHECK(end <= prompt.text.size());
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  const auto repeated = [](const std::string& part) {
    return [part](size_t n) {
      std::string text;
      while (text.size() < n) text += part;
      return text;
    };
  };
  return {{"expressions", repeated("{{ 1 }}")},
          {"text", repeated("a\n")},
          {"comments", repeated("{# a #}")},
          {"variables", repeated("{% set a = 1 %}")},
          {"open tags", repeated("{{ ")},
          {"a sum", [](size_t n) {
             std::string text = "{{ 1";
             while (text.size() < n) text += " + 1";
             return text + " }}";
           }}};
}

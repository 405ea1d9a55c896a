#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("tokenizer.json", data, size);
    dmc::fuzz::use(dmc::text::Tokenizer(dir));
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  const auto bpe = [](const std::string& more) {
    return R"({"decoder":{"type":"Fuse"},"model":{"type":"BPE","merges":[],"vocab":{"a":0}})" +
           more + "}";
  };
  return {{"tokens",
           [](size_t n) {
             std::string text = R"({"model":{"type":"BPE","merges":[],"vocab":{"a":0)";
             for (size_t i = 1; text.size() < n; ++i) {
               text += ",\"" + std::to_string(i) + "\":" + std::to_string(i);
             }
             return text + "}}}";
           }},
          {"merges",
           [](size_t n) {
             std::string text = R"({"model":{"type":"BPE","vocab":{"a":0,"aa":1},"merges":["a a")";
             while (text.size() < n) text += ",\"a a\"";
             return text + "]}}";
           }},
          {"added tokens",
           [=](size_t n) {
             std::string list = R"(,"added_tokens":[{"id":1,"content":"b"})";
             for (size_t i = 2; list.size() < n; ++i) {
               const std::string id = std::to_string(i);
               list += ",{\"id\":" + id + ",\"content\":\"<" + id + ">\",\"normalized\":true}";
             }
             return bpe(list + R"(],"normalizer":{"type":"Lowercase"})");
           }},
          {"scored tokens",
           [](size_t n) {
             std::string text = R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1])";
             for (size_t i = 0; text.size() < n; ++i) {
               text += ",[\"" + std::string(200, 'a') + std::to_string(i) + "\",-1]";
             }
             return text + "]}}";
           }},
          {"ids around a text", [=](size_t n) {
             std::string ids = "0";
             while (ids.size() < n) ids += ",0";
             return bpe(R"(,"post_processor":{"type":"TemplateProcessing",)"
                        R"("single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"ids":[)" +
                        ids + "]}}}");
           }}};
}

// vocab.json and merges.txt: the input is both, with a zero between them.
#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint8_t* const zero = std::find(data, data + size, uint8_t{0});
  const uint8_t* const merges = std::min(zero + 1, data + size);
  dmc::fuzz::directory_with("vocab.json", data, static_cast<size_t>(zero - data));
  const auto& dir =
      dmc::fuzz::directory_with("merges.txt", merges, static_cast<size_t>(data + size - merges));
  return dmc::fuzz::accept_errors([&] { dmc::fuzz::use(dmc::text::Tokenizer(dir)); });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"tokens",
           [](size_t n) {
             std::string text = "{\"a\":0";
             for (size_t i = 1; text.size() < n; ++i) {
               text += ",\"" + std::to_string(i) + "\":" + std::to_string(i);
             }
             return text + "}" + std::string(1, '\0');
           }},
          {"merges", [](size_t n) {
             std::string text = R"({"a":0,"aa":1})" + std::string(1, '\0');
             while (text.size() < n) text += "a a\n";
             return text;
           }}};
}

#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("tokenizer.model", data, size);
    dmc::fuzz::use(dmc::text::Tokenizer(dir));
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"ranks",  // tiktoken's lines
           [](size_t n) {
             std::string text = "YQ== 0\n";
             for (size_t i = 1; text.size() < n; ++i) text += "YWFh " + std::to_string(i) + "\n";
             return text;
           }},
          {"long tokens",
           [](size_t n) {
             std::string text;
             for (size_t i = 0; text.size() < n; ++i) {
               text += std::string(676, 'Y') + " " + std::to_string(i) + "\n";
             }
             return text;
           }},
          {"pieces", [](size_t n) {  // of sentencepiece: {1: {1: "ab", 2: -1.0}}
             std::string file("\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02", 16);
             for (size_t i = 0; file.size() < n; ++i) {
               const std::string text = std::to_string(100'000'000 + i);
               file +=
                   std::string("\x0a\x10\x0a\x09", 4) + text + std::string("\x15\0\0\x80\xbf", 5);
             }
             return file;
           }}};
}

#include "model/checkpoint.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"
#include "text/chat_template.h"
#include "text/generation_config.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 500};

// A GGUF file is a model and its tokenizer: what is accepted of either is used. Every tensor is
// read to its end, so that one that lies outside of the file shows.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = dmc::fuzz::directory_with("model.gguf", data, size) / "model.gguf";
  dmc::fuzz::accept_errors([&] {
    const auto [config, checkpoint] = dmc::model::open_model(file, "");
    for (const auto& [name, shape] : checkpoint.layout().shapes) {
      const auto matrix = checkpoint.matrix(name);
      std::vector<float> row(static_cast<size_t>(matrix->columns()));
      for (int64_t r = 0; r < matrix->rows(); ++r) matrix->read_rows(r, 1, row.data());
    }
  });
  return dmc::fuzz::accept_errors([&] {
    const dmc::text::Tokenizer tokenizer(file);
    dmc::fuzz::use(tokenizer);
    dmc::text::ChatTemplate::find(file);
    dmc::text::reply_stop_ids(file, tokenizer);
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  // Version 3, so many tensors and keys.
  const auto begin = [](uint64_t tensors, uint64_t keys) {
    std::string file = "GGUF" + std::string("\3\0\0\0", 4) + std::string(16, '\0');
    std::memcpy(file.data() + 8, &tensors, 8);
    std::memcpy(file.data() + 16, &keys, 8);
    return file;
  };
  const auto number = [](uint64_t value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  return {{"keys",
           [=](size_t n) {
             const size_t keys = std::min<size_t>(n / 24, 65'000);
             std::string file = begin(0, keys);
             for (size_t i = 0; i < keys; ++i) {
               const std::string key = "key" + std::to_string(i);
               file += number(key.size()) + key + std::string("\0\0\0\0", 4) + "x";
             }
             return file;
           }},
          {"tensors",
           [=](size_t n) {
             const size_t tensors = std::min<size_t>(n / 40, 99'000);
             std::string file = begin(tensors, 0);
             for (size_t i = 0; i < tensors; ++i) {
               const std::string name = "t" + std::to_string(i);
               file += number(name.size()) + name + std::string("\1\0\0\0", 4) + number(1) +
                       std::string(4, '\0') + number(32 * i);
             }
             return file + std::string(32 * tensors + 64, '\0');
           }},
          {"texts", [=](size_t n) {
             const std::string key = "tokenizer.ggml.tokens";
             std::string file = begin(0, 1) + number(key.size()) + key +
                                std::string("\x09\0\0\0\x08\0\0\0", 8) + number(n / 9);
             for (size_t i = 0; i < n / 9; ++i) file += number(1) + "a";
             return file;
           }}};
}

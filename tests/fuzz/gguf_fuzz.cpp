#include "model/checkpoint.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"
#include "text/chat_template.h"
#include "text/generation_config.h"

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

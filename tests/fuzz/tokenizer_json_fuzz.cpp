#include "tests/fuzz/target.h"
#include "tests/fuzz/tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("tokenizer.json", data, size);
    dmc::fuzz::use(dmc::text::Tokenizer(dir));
  });
}

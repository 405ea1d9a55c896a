#include "model/config_file.h"

#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("config.json", data, size);
    dmc::model::model_config_json(dmc::model::read_model_config(dir));
  });
}

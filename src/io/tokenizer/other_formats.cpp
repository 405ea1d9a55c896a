#include "base/error.h"
#include "io/tokenizer/pipeline.h"

namespace dmc::io {

Pipeline read_tokenizer_model(const std::filesystem::path& file) {
  throw data_error(file.string() + " is not supported yet; convert it to tokenizer.json");
}

}  // namespace dmc::io

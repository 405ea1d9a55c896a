#include "text/tokenizer/tokenizer_model.h"

#include "base/file.h"

namespace dmc::text {

Pipeline read_tokenizer_model(const std::filesystem::path& file) {
  constexpr size_t kLargestFile = size_t{64} << 20;
  constexpr char kFirstPiece = 0x0a;  // field 1, length-delimited: how a sentencepiece model begins
  Pipeline pipeline;
  pipeline.origin = file.string();
  const std::string bytes = read_text_file(file, kLargestFile);
  const TokenizerConfig config = read_tokenizer_config(file.parent_path());
  const auto read = bytes.starts_with(kFirstPiece) ? read_sentencepiece : read_tiktoken;
  read(bytes, config, &pipeline);
  return pipeline;
}

}  // namespace dmc::text

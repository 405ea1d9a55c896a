#include "text/model_text.h"

#include "base/file.h"
#include "base/gguf.h"
#include "text/tokenizer/gguf_vocabulary.h"

namespace dmc::text {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
};

}  // namespace

std::optional<std::string> read_model_text(const fs::path& model, const std::string& name,
                                           size_t limit) {
  if (is_gguf(model)) return gguf_text(GgufFile(model), name);
  if (!is_there(model / name)) return std::nullopt;
  return read_text_file(model / name, limit);
}

std::string model_text_origin(const fs::path& model, const std::string& name) {
  return is_gguf(model) ? model.string() : (model / name).string();
}

void copy_model_texts(const fs::path& from, const fs::path& to) {
  if (fs::equivalent(from, to)) return;
  constexpr size_t kLargestFile = size_t{1} << 30;
  for (const char* name : kNames) {
    if (const auto text = read_model_text(from, name, kLargestFile)) {
      write_file_atomically(to / name, *text);
    }
  }
}

}  // namespace dmc::text

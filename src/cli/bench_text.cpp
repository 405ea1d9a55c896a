#include "cli/bench_text.h"

#include "cli/options.h"

namespace dmc::cli {

std::vector<int32_t> bench_text(const std::vector<std::filesystem::path>& data,
                                const runtime::Model& model, const std::filesystem::path& model_dir,
                                int64_t count) {
  const text::Tokenizer tokenizer(model_dir, model.config.vocab_size);
  const text::Corpus corpus = scored_corpus(data);
  text::TokenFeed feed(corpus, tokenizer, model::document_separator(model.config, model_dir),
                       /*seed=*/1);
  std::vector<int32_t> text(static_cast<size_t>(count));
  feed.read(text);
  return text;
}

}  // namespace dmc::cli

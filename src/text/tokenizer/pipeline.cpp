#include "text/tokenizer/pipeline.h"

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::text {

Work& Pipeline::loading() {
  constexpr size_t kAsForText = size_t{4} << 20;  // bytes
  if (!loading_) loading_ = std::make_unique<Work>(origin, kAsForText);
  return *loading_;
}

void add_token(const AddedToken& token, Pipeline* pipeline) {
  if (token.text.empty()) return;
  std::string spelling = token.text;
  if (token.normalized) {
    apply_normalizers(pipeline->normalizers, /*at_start=*/true, pipeline->loading(), &spelling);
  }
  if (spelling.size() > AddedTokenFinder::kLongestText) {
    throw data_error(pipeline->origin + ": added token " + std::to_string(token.id) +
                     " is longer than " + std::to_string(AddedTokenFinder::kLongestText) +
                     " bytes");
  }
  // Without normalizers both finders see the same text; the raw one knows what is trusted.
  const bool raw = !token.normalized || pipeline->normalizers.empty();
  AddedTokenFinder& finder = raw ? pipeline->raw_tokens : pipeline->normalized_tokens;
  if (!spelling.empty()) finder.add(spelling, token);
  pipeline->added.push_back(token);
}

}  // namespace dmc::text

#include "text/tokenizer/vocabulary.h"

#include "base/error.h"

namespace dmc::text {

void Vocabulary::put(int32_t id, std::string text) {
  const auto index = static_cast<size_t>(id);
  DMC_CHECK(id >= 0 && index < kMostTokens);
  if (index >= texts_.size()) texts_.resize(index + 1);
  ids_.try_emplace(text, id);
  texts_[index] = std::move(text);
}

std::optional<int32_t> Vocabulary::find(std::string_view text) const {
  const auto found = ids_.find(text);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace dmc::text

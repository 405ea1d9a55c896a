#include "engine/model_runner.h"

#include "base/error.h"

namespace dmc::engine {

SequenceId ModelRunner::restore(std::string_view) {
  throw unavailable("", "this runner takes no saved sequences back");
}

std::vector<int32_t> ModelRunner::write(const Writing& text, int64_t) {
  const StepItem item{text.sequence, {&text.token, 1}};
  return {sample(step({&item, 1}).logits, text.sampling, text.position)};
}

// Pages are reserved for a step as if nothing was compressed, so a long prompt comes in several.
std::vector<float> prefill(ModelRunner& runner, SequenceId sequence,
                           std::span<const int32_t> tokens) {
  constexpr size_t kTokens = 4096;
  for (; tokens.size() > kTokens; tokens = tokens.subspan(kTokens)) {
    const StepItem part{sequence, tokens.first(kTokens), false, Wanted::kNone};
    runner.step({&part, 1});
  }
  const StepItem last{sequence, tokens, /*ends_prompt=*/true};
  return runner.step({&last, 1}).logits;
}

std::vector<float> prefill_logits(ModelRunner& runner, SequenceId sequence,
                                  std::span<const int32_t> tokens) {
  const StepItem item{sequence, tokens, false, Wanted::kAll};
  return runner.step({&item, 1}).logits;
}

std::vector<float> decode(ModelRunner& runner, std::span<const SequenceId> sequences,
                          std::span<const int32_t> tokens) {
  DMC_CHECK(sequences.size() == tokens.size());
  std::vector<StepItem> items;
  for (size_t i = 0; i < tokens.size(); ++i) items.push_back({sequences[i], tokens.subspan(i, 1)});
  return runner.step(items).logits;
}

}  // namespace dmc::engine

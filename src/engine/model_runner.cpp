#include "engine/model_runner.h"

namespace dmc::engine {

std::vector<int32_t> ModelRunner::write(const Writing& text, int64_t) {
  const std::vector<float> logits = decode({&text.sequence, 1}, {&text.token, 1});
  return {sample(logits, text.sampling, text.position)};
}

std::vector<float> ModelRunner::prefill_logits(SequenceId sequence,
                                               std::span<const int32_t> tokens) {
  std::vector<float> logits;
  logits.reserve(tokens.size() * static_cast<size_t>(vocab_size()));
  for (const int32_t& token : tokens) {
    const std::vector<float> row = decode({&sequence, 1}, {&token, 1});
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

}  // namespace dmc::engine

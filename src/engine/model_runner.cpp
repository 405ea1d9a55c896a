#include "engine/model_runner.h"

namespace dmc::engine {

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

// Predictions over a long given text, in pieces: all logits of a window would need gigabytes on a
// large vocabulary.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "eval/cache_use.h"

namespace dmc::eval {

constexpr size_t kPredictionsAtOnce = 128;

// Takes `tokens` into `sequence`; fn(i, logits) is called in order with what the model expects
// behind tokens[i], [vocabulary].
inline void for_each_prediction(engine::ModelRunner& runner, const Sequence& sequence,
                                std::span<const int32_t> tokens,
                                const std::function<void(size_t, std::span<const float>)>& fn) {
  const auto row = static_cast<size_t>(runner.vocab_size());
  for (size_t first = 0; first < tokens.size(); first += kPredictionsAtOnce) {
    const size_t count = std::min(kPredictionsAtOnce, tokens.size() - first);
    const std::vector<float> logits =
        engine::prefill_logits(runner, sequence.id(), tokens.subspan(first, count));
    for (size_t i = 0; i < count; ++i) fn(first + i, std::span(logits).subspan(i * row, row));
  }
}

}  // namespace dmc::eval

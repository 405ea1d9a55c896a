// How well a model predicts held-out text with its cache compressed, and how far it compresses it.
#pragma once

#include <functional>
#include <vector>

#include "runtime/runner.h"
#include "text/corpus.h"

namespace dmc::eval {

struct Score {
  double loss = 0.0;        // nats per predicted token
  double perplexity = 0.0;  // exp(loss)
  double bits_per_byte = 0.0;
  double bits_per_byte_error = 0.0;  // standard error, windows being the sample; NaN for one
  double next_token_accuracy = 0.0;  // share of tokens that were the model's first choice
  int64_t tokens = 0;                // seen, over all windows
  int64_t bytes = 0;                 // of the text that predicted tokens stand for
  double slots = 0.0;                // kept for them: the mean over layers and KV heads
  double compression_ratio = 1.0;    // tokens / slots
  std::vector<std::vector<double>> cr_by_head;  // [layer][KV head]
};

// Every window is taken in by one compressed prefill, so each prediction is made from compressed
// slots, as in decoding. on_tokens is called with the number of tokens taken in.
Score score(runtime::Runner& runner, const text::EvalWindows& windows,
            const std::function<void(int64_t)>& on_tokens);

}  // namespace dmc::eval

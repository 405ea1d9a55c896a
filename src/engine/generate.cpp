#include "engine/generate.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/stopwatch.h"

namespace dmc::engine {

void check_request(const ModelRunner& runner, std::span<const int32_t> prompt,
                   const GenerateOptions& options) {
  check_sampling_options(options.sampling);
  if (prompt.empty()) throw usage_error("the prompt is empty; give some text");
  const int64_t tokens = options.held_tokens + static_cast<int64_t>(prompt.size());
  if (tokens > runner.max_positions()) {
    throw usage_error("the prompt has " + std::to_string(tokens) +
                      " tokens, the model's context is " + std::to_string(runner.max_positions()) +
                      "; shorten the prompt");
  }
}

Generation generate(ModelRunner& runner, SequenceId sequence, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(int32_t)>& on_token,
                    const std::function<bool()>& cancelled) {
  check_request(runner, prompt, options);
  Generation result;
  const Stopwatch prefill_watch;
  std::vector<float> logits = runner.prefill(sequence, prompt);
  result.prefill_seconds = prefill_watch.seconds();

  const Stopwatch decode_watch;
  int64_t position = options.held_tokens + static_cast<int64_t>(prompt.size());
  while (static_cast<int64_t>(result.tokens.size()) < options.max_tokens) {
    const int32_t token = sample(logits, options.sampling, position);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) {
      result.stop = StopReason::kEndOfText;
      break;
    }
    result.tokens.push_back(token);
    on_token(token);
    if (cancelled()) {
      result.stop = StopReason::kCancelled;
      break;
    }
    // The last token's logits are not needed.
    if (static_cast<int64_t>(result.tokens.size()) == options.max_tokens) break;
    if (position == runner.max_positions()) {
      result.stop = StopReason::kContextFull;
      break;
    }
    logits = runner.decode(std::span(&sequence, 1), std::span(&token, 1));
    ++position;
    ++result.taken_in;
  }
  result.decode_seconds = decode_watch.seconds();
  return result;
}

}  // namespace dmc::engine

#include "engine/generate.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/stopwatch.h"

namespace dmc::engine {
namespace {

// How many tokens a runner may write before they are shown: as many as take it a twentieth of a
// second, so that text flows and a cancelled one ends soon.
class Portion {
 public:
  int64_t steps() const { return steps_; }
  void took(double seconds) {
    constexpr double kSeconds = 0.05;
    constexpr int64_t kMost = 256;
    if (seconds < kSeconds / 2) steps_ = std::min(2 * steps_, kMost);
    if (seconds > kSeconds) steps_ = std::max<int64_t>(1, steps_ / 2);
  }

 private:
  int64_t steps_ = 1;
};

// Takes tokens over and shows them, up to a stop token. Returns whether there was one.
bool take(std::span<const int32_t> written, std::span<const int64_t> stop_ids,
          const std::function<void(int32_t)>& on_token, std::vector<int32_t>* tokens) {
  for (int32_t token : written) {
    if (std::ranges::find(stop_ids, token) != stop_ids.end()) return true;
    tokens->push_back(token);
    on_token(token);
  }
  return false;
}

}  // namespace

void check_request(const ModelRunner& runner, std::span<const int32_t> prompt,
                   const GenerateOptions& options) {
  check_sampling_options(options.sampling);
  if (prompt.empty()) throw invalid_argument("the prompt is empty; give some text");
  const int64_t tokens = options.held_tokens + static_cast<int64_t>(prompt.size());
  if (tokens > runner.max_positions()) {
    throw invalid_argument("the prompt has " + std::to_string(tokens) +
                           " tokens, the model's context is " +
                           std::to_string(runner.max_positions()) + "; shorten the prompt");
  }
}

Generation generate(ModelRunner& runner, SequenceId sequence, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(int32_t)>& on_token,
                    const std::function<bool()>& cancelled) {
  check_request(runner, prompt, options);
  Generation result;
  const Stopwatch prefill_watch;
  const std::vector<float> logits = prefill(runner, sequence, prompt);
  result.prefill_seconds = prefill_watch.seconds();

  const Stopwatch decode_watch;
  Portion portion;
  int64_t position = options.held_tokens + static_cast<int64_t>(prompt.size());
  std::vector<int32_t> written;
  if (options.max_tokens > 0) written = {sample(logits, options.sampling, position)};
  for (;;) {
    if (take(written, options.stop_ids, on_token, &result.tokens)) {
      result.stop = StopReason::kEndOfText;
      break;
    }
    if (cancelled()) {
      result.stop = StopReason::kCancelled;
      break;
    }
    const int64_t wanted = options.max_tokens - static_cast<int64_t>(result.tokens.size());
    if (wanted == 0) break;  // the last token's logits are not needed
    const int64_t room = runner.max_positions() - position;
    if (room == 0) {
      result.stop = StopReason::kContextFull;
      break;
    }
    const Stopwatch watch;
    written = runner.write(
        {sequence, result.tokens.back(), position + 1, options.sampling, options.stop_ids},
        std::min({wanted, room, portion.steps()}));
    portion.took(watch.seconds());
    position += static_cast<int64_t>(written.size());
    result.taken_in += static_cast<int64_t>(written.size());
  }
  result.decode_seconds = decode_watch.seconds();
  return result;
}

}  // namespace dmc::engine

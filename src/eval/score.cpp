#include "eval/score.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "base/parallel.h"
#include "eval/log_probs.h"
#include "eval/tasks/statistics.h"

namespace dmc::eval {
namespace {

// Logits exist for so many tokens at a time: a whole window's would need gigabytes on a large
// vocabulary.
constexpr size_t kRowsAtOnce = 256;

struct Sums {
  double log_prob = 0.0;  // natural logarithms of all predictions, summed
  int64_t predictions = 0, greedy = 0, bytes = 0, tokens = 0;

  double bits() const { return -log_prob / std::numbers::ln2; }
  void add(std::span<const LogLikelihood> ratings) {
    for (const LogLikelihood& rating : ratings) {
      log_prob += rating.log_prob;
      greedy += rating.greedy ? 1 : 0;
    }
    predictions += std::ssize(ratings);
  }
};

// Takes the window in and rates each of its tokens but the first.
void rate_window(runtime::Runner& runner, engine::SequenceId sequence,
                 std::span<const int32_t> window, const std::function<void(int64_t)>& on_tokens,
                 Sums* sums) {
  const auto vocab = static_cast<size_t>(runner.vocab_size());
  for (size_t first = 0; first < window.size(); first += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, window.size() - first);
    const std::vector<float> logits =
        engine::prefill_logits(runner, sequence, window.subspan(first, count));
    const size_t rated = std::min(count, window.size() - 1 - first);
    std::vector<LogLikelihood> ratings(rated);
    parallel_for(0, static_cast<int64_t>(rated), 8, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        ratings[i] = rate(std::span(logits).subspan(i * vocab, vocab), window[first + i + 1]);
      }
    });
    sums->add(ratings);
    sums->tokens += static_cast<int64_t>(count);
    on_tokens(sums->tokens);
  }
}

// slots: [layers * kv_heads], over all windows.
void fill_ratios(const std::vector<int64_t>& slots, size_t kv_heads, Score* score) {
  int64_t total = 0;
  for (size_t stream = 0; stream < slots.size(); ++stream) {
    if (stream % kv_heads == 0) score->cr_by_head.emplace_back();
    total += slots[stream];
    score->cr_by_head.back().push_back(static_cast<double>(score->tokens) /
                                       static_cast<double>(slots[stream]));
  }
  score->slots = static_cast<double>(total) / static_cast<double>(slots.size());
  score->compression_ratio = static_cast<double>(score->tokens) / score->slots;
}

}  // namespace

Score score(runtime::Runner& runner, const text::EvalWindows& windows,
            const std::function<void(int64_t)>& on_tokens) {
  const model::ModelConfig& config = runner.model().config;
  std::vector<int64_t> slots(static_cast<size_t>(config.num_layers * config.num_kv_heads));
  Sums sums;
  std::vector<double> by_window;
  for (size_t i = 0; i < windows.tokens.size(); ++i) {
    const auto sequence = engine::Sequence::add(runner);
    const double before = sums.bits();
    rate_window(runner, sequence.id(), windows.tokens[i], on_tokens, &sums);
    sums.bytes += windows.bytes[i];
    if (windows.bytes[i] > 0) {
      by_window.push_back((sums.bits() - before) / static_cast<double>(windows.bytes[i]));
    }
    const std::vector<int64_t> kept = runner.slots(sequence.id());
    for (size_t stream = 0; stream < slots.size(); ++stream) slots[stream] += kept[stream];
  }

  Score result;
  const auto predictions = static_cast<double>(sums.predictions);
  if (predictions > 0) {
    result.loss = -sums.log_prob / predictions;
    result.next_token_accuracy = static_cast<double>(sums.greedy) / predictions;
  }
  result.perplexity = std::exp(result.loss);
  result.bytes = sums.bytes;
  result.bits_per_byte = sums.bits() / static_cast<double>(sums.bytes);
  result.bits_per_byte_error = mean_metric("bits_per_byte", by_window).standard_error;
  result.tokens = sums.tokens;
  fill_ratios(slots, static_cast<size_t>(config.num_kv_heads), &result);
  return result;
}

}  // namespace dmc::eval

#include "eval/tasks/multi_turn.h"

#include <array>
#include <numeric>

#include "base/error.h"
#include "eval/cache_use.h"
#include "eval/log_probs.h"
#include "eval/tasks/statistics.h"

namespace dmc::eval {
namespace {

using Tokens = std::span<const int32_t>;

struct Ratings {
  std::vector<double> loss, acc;  // by token
  std::array<std::vector<double>, kTurns> acc_by_turn;

  void add(size_t turn, const LogLikelihood& rating) {
    loss.push_back(-rating.log_prob);
    acc.push_back(rating.greedy);
    acc_by_turn[turn].push_back(rating.greedy);
  }
};

// Takes the prompt in, then the answer but for its last token, which is only rated.
void rate_answer(const TaskInput& input, const Sequence& sequence, Tokens prompt, Tokens answer,
                 size_t turn, Ratings* ratings) {
  ratings->add(turn, rate(engine::prefill(input.runner, sequence.id(), prompt), answer[0]));
  const auto row = static_cast<size_t>(input.runner.vocab_size());
  const auto logits =
      engine::prefill_logits(input.runner, sequence.id(), answer.first(answer.size() - 1));
  for (size_t i = 1; i < answer.size(); ++i) {
    ratings->add(turn, rate(std::span(logits).subspan((i - 1) * row, row), answer[i]));
  }
}

struct Results {
  Ratings kept, rebuilt;
  CacheUse cache_use;
};

void converse(const TaskInput& input, Tokens window, Results* results) {
  const size_t length = window.size() / kTurns, half = length / 2;
  const auto conversation = Sequence::add(input.runner);
  size_t taken = 0;  // into the conversation's cache
  for (size_t turn = 0; turn < kTurns; ++turn) {
    const size_t begin = turn * length + half, end = (turn + 1) * length;
    const Tokens answer = window.subspan(begin, end - begin);
    // An answer's last token comes in with the next question.
    rate_answer(input, conversation, window.subspan(taken, begin - taken), answer, turn,
                &results->kept);
    taken = end - 1;
    const auto anew = Sequence::add(input.runner);
    rate_answer(input, anew, window.first(begin), answer, turn, &results->rebuilt);
  }
  results->cache_use.add(input.runner, conversation, taken);
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

TaskScore run_multi_turn(const TaskInput& input) {
  DMC_CHECK(input.text != nullptr);
  const auto& windows = input.text->tokens;
  const auto count = static_cast<int64_t>(windows.size());
  const int64_t used = input.limit > 0 ? std::min(count, input.limit) : count;
  if (windows.empty() || windows[0].size() < 4 * kTurns) {
    throw invalid_argument("task multi_turn needs windows of " + std::to_string(4 * kTurns) +
                           " tokens or more; give a longer --length");
  }
  Results results;
  for (int64_t i = 0; i < used; ++i) {
    converse(input, windows[static_cast<size_t>(i)], &results);
    input.progress(i + 1, used);
  }
  Grid grid{"turn", "cache", {}, {"kept", "rebuilt"}, {}};
  for (size_t turn = 0; turn < kTurns; ++turn) {
    grid.rows.push_back(std::to_string(turn + 1));
    grid.values.push_back(
        {mean(results.kept.acc_by_turn[turn]), mean(results.rebuilt.acc_by_turn[turn])});
  }
  return {static_cast<int64_t>(results.kept.acc.size()),
          {mean_metric("rebuilt_loss", results.rebuilt.loss),
           mean_metric("rebuilt_acc", results.rebuilt.acc), mean_metric("loss", results.kept.loss),
           mean_metric("acc", results.kept.acc)},
          results.cache_use.compression_ratio(),
          {grid}};
}

}  // namespace dmc::eval

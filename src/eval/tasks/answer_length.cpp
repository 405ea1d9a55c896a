#include "eval/tasks/answer_length.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "engine/generate.h"
#include "eval/cache_use.h"
#include "eval/tasks/statistics.h"

namespace dmc::eval {
namespace {

constexpr size_t kLongestPrompt = 512, kRun = 8;
constexpr int64_t kLongestAnswer = 256;

engine::Generation answer(const TaskInput& input, engine::ModelRunner& runner,
                          std::span<const int32_t> prompt, CacheUse* cache_use) {
  engine::GenerateOptions options;
  options.max_tokens = kLongestAnswer;
  options.stop_ids = input.end_of_text;
  options.sampling.temperature = 0.0f;
  const auto sequence = Sequence::add(runner);
  const auto never = [] { return false; };
  engine::Generation generation = engine::generate(
      runner, sequence.id(), prompt, options, [](int32_t) {}, never);
  // The last token is not taken into the cache.
  const size_t taken = prompt.size() + generation.tokens.size() - 1;
  if (cache_use != nullptr) cache_use->add(runner, sequence, taken);
  return generation;
}

}  // namespace

double repeated_share(std::span<const int32_t> tokens) {
  if (tokens.size() <= kRun) return 0.0;
  std::set<std::vector<int32_t>> seen;
  double repeated = 0.0;
  for (size_t end = kRun; end <= tokens.size(); ++end) {
    const auto run = tokens.subspan(end - kRun, kRun);
    if (!seen.insert({run.begin(), run.end()}).second) repeated += 1.0;
  }
  return repeated / static_cast<double>(tokens.size());
}

TaskScore run_answer_length(const TaskInput& input) {
  DMC_CHECK(input.text != nullptr && input.reference != nullptr);
  const auto& windows = input.text->tokens;
  const auto count = static_cast<int64_t>(windows.size());
  const int64_t used = input.limit > 0 ? std::min(count, input.limit) : count;
  CacheUse cache_use;
  std::vector<double> reference_length, length, unfinished, repeated;
  for (int64_t i = 0; i < used; ++i) {
    const std::span<const int32_t> window = windows[static_cast<size_t>(i)];
    const auto prompt = window.first(std::min(window.size() / 2, kLongestPrompt));
    const auto reference = answer(input, *input.reference, prompt, nullptr);
    const auto compressed = answer(input, input.runner, prompt, &cache_use);
    reference_length.push_back(static_cast<double>(reference.tokens.size()));
    length.push_back(static_cast<double>(compressed.tokens.size()));
    unfinished.push_back(compressed.stop == engine::StopReason::kLength);
    repeated.push_back(repeated_share(compressed.tokens));
    input.progress(i + 1, used);
  }
  return {used,
          {mean_metric("reference_length", reference_length), mean_metric("length", length),
           mean_metric("unfinished", unfinished), mean_metric("repeated", repeated)},
          cache_use.compression_ratio()};
}

}  // namespace dmc::eval

#include "eval/tasks/humaneval.h"

#include <algorithm>

#include "base/error.h"
#include "engine/generate.h"
#include "eval/cache_use.h"
#include "eval/data_file.h"
#include "eval/tasks/statistics.h"
#include "sandbox/sandbox.h"

namespace dmc::eval {
namespace {

constexpr std::string_view kStops[] = {"\nclass", "\ndef", "\n#", "\nif", "\nprint"};
constexpr int64_t kMostTokens = 1024;

struct Problem {
  std::string prompt, function, tests;
};

std::vector<Problem> read_problems(const std::filesystem::path& file, int64_t limit) {
  std::vector<Problem> problems;
  for (const Record& record : read_json_lines(file)) {
    if (limit > 0 && static_cast<int64_t>(problems.size()) == limit) break;
    const std::string function = record.text("entry_point");
    problems.push_back(
        {record.text("prompt"), function, record.text("test") + "\ncheck(" + function + ")\n"});
  }
  return problems;
}

engine::GenerateOptions generate_options(const TaskInput& input) {
  engine::GenerateOptions options;
  // A model with a short context keeps half of it for the prompt.
  options.max_tokens = std::min(kMostTokens, input.runner.max_positions() / 2);
  options.stop_ids = input.end_of_text;
  options.sampling = {.temperature = input.code.samples > 1 ? input.code.temperature : 0.0,
                      .top_p = 0.95,
                      .seed = input.code.seed};
  return options;
}

std::string complete(const TaskInput& input, std::span<const int32_t> prompt,
                     const engine::GenerateOptions& options, CacheUse* cache_use) {
  const auto sequence = Sequence::add(input.runner);
  text::StreamDecoder decoder(input.tokenizer);
  std::string text;
  const engine::Generation generation = engine::generate(
      input.runner, sequence.id(), prompt, options, [&](int32_t id) { text += decoder.push(id); },
      [&] { return cut_at_stop(text, kStops).size() < text.size(); });
  text += decoder.finish();
  // The last token of the text was not taken in.
  cache_use->add(input.runner, sequence,
                 prompt.size() + std::max<size_t>(generation.tokens.size(), 1) - 1);
  return std::string(cut_at_stop(text, kStops));
}

}  // namespace

std::string_view cut_at_stop(std::string_view text, std::span<const std::string_view> stops) {
  size_t end = text.size();
  for (std::string_view stop : stops) end = std::min(end, text.find(stop));
  return text.substr(0, end);
}

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  DMC_CHECK(0 <= c && c <= n && 1 <= k && k <= n);
  double all_wrong = 1.0;
  for (int64_t i = n - c + 1; i <= n; ++i) {
    all_wrong *= std::max(0.0, 1.0 - static_cast<double>(k) / static_cast<double>(i));
  }
  return 1.0 - all_wrong;
}

TaskScore run_humaneval(const TaskInput& input) {
  const sandbox::PythonSandbox sandbox{sandbox::SandboxLimits{}};
  const std::vector<Problem> problems = read_problems(input.file, input.limit);
  engine::GenerateOptions options = generate_options(input);
  const int64_t room = input.runner.max_positions() - options.max_tokens;
  CacheUse cache_use;
  std::vector<int64_t> passed;  // samples of each problem
  for (const Problem& problem : problems) {
    const std::vector<int32_t> ids = input.tokenizer.encode_prompt(problem.prompt);
    const auto kept = std::min(ids.size(), static_cast<size_t>(room));
    passed.push_back(0);
    for (int64_t i = 0; i < input.code.samples; ++i) {
      const std::string completion =
          complete(input, std::span(ids).last(kept), options, &cache_use);
      ++options.sampling.seed;
      passed.back() += sandbox.judge({.program = problem.prompt + completion,
                                      .function = problem.function,
                                      .helpers = problem.prompt,  // some tests use what it defines
                                      .tests = problem.tests}) == sandbox::Verdict::kPassed;
    }
    input.progress(static_cast<int64_t>(passed.size()), static_cast<int64_t>(problems.size()));
  }
  TaskScore score{static_cast<int64_t>(passed.size()), {}, cache_use.compression_ratio()};
  for (int64_t k : {1, 10, 100}) {
    if (k > input.code.samples) break;
    std::vector<double> values;
    for (int64_t c : passed) values.push_back(pass_at_k(input.code.samples, c, k));
    score.metrics.push_back(mean_metric("pass@" + std::to_string(k), values));
  }
  return score;
}

}  // namespace dmc::eval

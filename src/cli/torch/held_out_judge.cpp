#include "cli/torch/held_out_judge.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "base/error.h"
#include "base/human.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "eval/score.h"
#include "model/config_file.h"
#include "runtime/decoder_runner.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFewestTokens = 8192, kMostTokens = 65536;
constexpr int64_t kTokensTrainedForOne = 40;
constexpr double kCompresses = 1.02;  // a ratio below is none

// What is compared with: policies that work on any model.
struct Untrained {
  const char* policy;
  const char* what;
};
constexpr Untrained kUntrained[] = {
    {"tova", "start with TOVA, untrained"},  // first: it is the slowest
    {"window", "start with a window, untrained"},
};

text::EvalWindows held_out_windows(const train::TrainOptions& options, int64_t count) {
  const text::Split split = text::Split::kHeldOut;
  const model::ModelConfig config = model::read_model_config(options.model_dir);
  const int32_t separator = options.separator(config);
  const text::Tokenizer tokenizer(options.model_dir, config.vocab_size);
  try {
    const text::Corpus corpus(options.data.empty() ? text::builtin_corpus(split) : options.data,
                              split);
    text::EvalWindows windows =
        text::eval_windows(corpus, tokenizer, separator, options.length, /*windows=*/0);
    const bool last_is_short = windows.tokens.back().size() < windows.tokens.front().size();
    if (windows.tokens.size() > 1 && last_is_short) windows.tokens.pop_back();
    windows.tokens.resize(std::min(windows.tokens.size(), static_cast<size_t>(count)));
    windows.bytes.resize(windows.tokens.size());
    return windows;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kData) throw;
    return {};
  }
}

eval::Score score(const fs::path& dir, const runtime::PolicyOptions& policy,
                  const text::EvalWindows& windows, const std::function<void(int64_t)>& on_tokens) {
  runtime::RunnerOptions options;
  options.compression = policy;
  runtime::DecoderRunner runner(runtime::load_model(dir), options);
  return eval::score(runner, windows, on_tokens);
}

text::EvalWindows first_of(const text::EvalWindows& windows, int64_t count) {
  const auto last = std::min(static_cast<size_t>(count), windows.tokens.size());
  text::EvalWindows first;
  first.tokens.assign(windows.tokens.begin(), windows.tokens.begin() + static_cast<long>(last));
  first.bytes.assign(windows.bytes.begin(), windows.bytes.begin() + static_cast<long>(last));
  return first;
}

std::string windows_text(size_t count, size_t length) {
  return std::to_string(count) + (count == 1 ? " window of " : " windows of ") +
         std::to_string(length) + " tokens";
}

// "+3.2 %".
std::string against(double loss, double start) {
  const double percent = 100.0 * (loss / start - 1.0);
  const std::string sign = percent >= 0 ? "+" : "";
  return sign + fixed(percent, 1) + " %";
}

}  // namespace

HeldOutJudge::HeldOutJudge(const train::TrainOptions& options) : start_(options.model_dir) {
  const int64_t trained = options.total_steps() * options.batch * options.length;
  const int64_t tokens = std::clamp(trained / kTokensTrainedForOne, kFewestTokens, kMostTokens);
  windows_ = held_out_windows(options, std::max<int64_t>(tokens / options.length, 1));
}

std::string HeldOutJudge::text() const {
  if (!has_text()) return "";
  return windows_text(windows_.tokens.size(), windows_.tokens.front().size());
}

train::HeldOut HeldOutJudge::measure(const fs::path& model) const {
  const eval::Score result = score(model, {}, windows_, [](int64_t) {});
  return {result.loss, result.compression_ratio};
}

train::Verdict::Line HeldOutJudge::line(const std::string& what, const fs::path& model,
                                        const runtime::PolicyOptions& policy,
                                        int64_t windows) const {
  const text::EvalWindows used = first_of(windows_, windows);
  ProgressBar bar("measuring " + what, used.total_tokens());
  const eval::Score result = score(model, policy, used, [&](int64_t done) { bar.update(done); });
  return {what, result.compression_ratio, result.loss, result.cr_by_head};
}

// TOVA takes a prompt in token by token, so it decides how much text there is time for.
int64_t HeldOutJudge::affordable_windows(double cr, double seconds) const {
  const Stopwatch watch;
  score(start_, {.policy = kUntrained[0].policy, .cr = cr}, first_of(windows_, 1), [](int64_t) {});
  const auto all = static_cast<double>(windows_.tokens.size());
  return static_cast<int64_t>(std::clamp(seconds / watch.seconds(), 1.0, all));
}

train::Verdict HeldOutJudge::conclude(const fs::path& result, double seconds) const {
  train::Verdict verdict;
  if (!has_text()) return verdict;
  const double first_cr = std::max(measure(result).cr, 1.0);
  const bool compresses = first_cr >= kCompresses;
  const int64_t windows = compresses ? affordable_windows(first_cr, seconds)
                                     : static_cast<int64_t>(windows_.tokens.size());
  verdict.text = windows_text(static_cast<size_t>(windows), windows_.tokens.front().size());
  verdict.lines = {line("start", start_, {}, windows), line("retrofitted", result, {}, windows)};
  std::vector<std::string> policies;
  for (const Untrained& untrained : kUntrained) {
    const double cr = verdict.result().cr;
    if (cr < kCompresses) break;
    verdict.lines.push_back(
        line(untrained.what, start_, {.policy = untrained.policy, .cr = cr}, windows));
    policies.push_back(untrained.policy);
  }
  verdict.advice = advice(verdict.lines, policies);
  return verdict;
}

std::string advice(const std::vector<train::Verdict::Line>& lines,
                   const std::vector<std::string>& policies) {
  const train::Verdict::Line &start = lines[0], &result = lines[1];
  const std::string own = against(result.loss, start.loss);
  if (policies.empty()) {
    return "The retrofitted model does not compress (its loss is " + own +
           " against the start's): train for longer before using it.";
  }
  const auto best =
      std::ranges::min_element(lines.begin() + 2, lines.end(), {}, &train::Verdict::Line::loss);
  const std::string& policy = policies[static_cast<size_t>(best - lines.begin()) - 2];
  const std::string others = against(best->loss, start.loss);
  if (result.loss <= best->loss) {
    return "Use the retrofitted model: at a ratio of " + fixed(result.cr, 2) + " its loss is " +
           own + " against the start's, where " + policy + " without training has " + others + ".";
  }
  return "Use the model you started from with `--policy " + policy + " --cr " +
         fixed(result.cr, 2) + "`: without training its loss is " + others +
         " against the start's, that of the " + "retrofitted model " + own +
         "; longer training may change that.";
}

}  // namespace dmc::cli

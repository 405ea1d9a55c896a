// Measures a training run's models on held-out text, as they are served, and says at the end
// whether a retrofit was worth it.
#pragma once

#include <optional>
#include <string>

#include "runtime/policy_choice.h"
#include "text/corpus.h"
#include "train/trainer.h"

namespace dmc::cli {

class HeldOutJudge {
 public:
  // Windows of options.length tokens of what training leaves out, more for a longer run. There may
  // be none: text() is then empty, and nothing can be measured.
  explicit HeldOutJudge(const train::TrainOptions& options);

  bool has_text() const { return !windows_.tokens.empty(); }
  std::string text() const;  // "32 windows of 512 tokens"

  train::HeldOut measure(const std::filesystem::path& model) const;

  // The start, the retrofitted model in `result`, and what drops tokens of the start at the ratio
  // that the result reached, which needs no training. `seconds` is about how long this may take: on
  // a large model fewer windows are used.
  train::Verdict conclude(const std::filesystem::path& result, double seconds) const;

 private:
  train::Verdict::Line line(const std::string& what, const std::filesystem::path& model,
                            const runtime::PolicyOptions& policy, int64_t windows) const;
  int64_t affordable_windows(double cr, double seconds) const;

  std::filesystem::path start_;
  text::EvalWindows windows_;
};

// One sentence: which of a verdict's lines to use (the start, the result, then those that need no
// training, whose policies are named), and how.
std::string advice(const std::vector<train::Verdict::Line>& lines,
                   const std::vector<std::string>& policies);

}  // namespace dmc::cli

// What a training command says: what was chosen and why, what it measures on the way, what came
// out.
#pragma once

#include <optional>
#include <vector>

#include "cli/torch/held_out_judge.h"
#include "cli/torch/train_options.h"

namespace dmc::cli {

// What came of a run on the first process.
struct TrainingRun {
  train::Outcome outcome = train::Outcome::kInterrupted;
  std::vector<train::StepRecord> records;
  train::Verdict verdict;                     // of a retrofit with held-out text
  std::optional<train::HeldOut> start, last;  // otherwise, where there is held-out text
};

void say_choice(const TrainCommand& command, const train::RunFacts& facts,
                const train::Defaults& chosen);

// Measures on the way, and warns once when that is worse than at the start.
class HeldOutWatch {
 public:
  // Measures the start, unless the run begins with random weights, and says so.
  HeldOutWatch(const HeldOutJudge& judge, const TrainCommand& command);

  train::HeldOut measure(const std::filesystem::path& model);
  const std::optional<train::HeldOut>& start() const { return start_; }

 private:
  const HeldOutJudge& judge_;
  std::optional<train::HeldOut> start_;
  bool warned_ = false;
};

// Says at the end what came out and where it is; the exit code.
int report_training(const TrainCommand& command, const TrainingRun& run);

}  // namespace dmc::cli

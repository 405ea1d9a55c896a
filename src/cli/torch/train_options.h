// Options and output that `train`, `retrofit` and `demo` share.
#pragma once

#include <CLI/CLI.hpp>

#include "train/defaults.h"
#include "train/trainer.h"

namespace dmc::cli {

struct TrainCommand {
  train::TrainOptions options;
  train::Given given;  // of the options that are chosen for a run where they are not given
  std::optional<int64_t> evaluate_every;  // 0: not on the way; not given: ten times
  int threads = 0;                        // 0: all cores, shared by the processes of this machine
  int processes = 0;                      // 0: not given
  bool fast_matmul = false;
  bool json = false;
};

void add_training_options(CLI::App& app, TrainCommand& command);

// Chooses what was not given and says what and why; runs with a progress bar and Ctrl-C handling;
// measures on held-out text, and says at the end what came out and where it is. `after_choice` may
// set options that depend on those that were chosen.
int run_training_command(TrainCommand command,
                         const std::function<void(train::TrainOptions&)>& after_choice = {});

// The training loop alone, with a bar on stderr.
train::Outcome train_with_progress(const TrainCommand& command,
                                   std::vector<train::StepRecord>* records,
                                   dist::Group& group = dist::alone(),
                                   const train::Judge& judge = {});

}  // namespace dmc::cli

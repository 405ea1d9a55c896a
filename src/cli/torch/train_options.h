// Options and output that `train`, `retrofit` and `demo` share.
#pragma once

#include <CLI/CLI.hpp>

#include "train/trainer.h"

namespace dmc::cli {

struct TrainCommand {
  train::TrainOptions options;
  int threads = 0;    // 0: all cores, shared by the processes of this machine
  int processes = 0;  // 0: not given
  bool fast_matmul = false;
  bool json = false;
};

void add_training_options(CLI::App& app, TrainCommand& command);

// Runs with a progress bar and Ctrl-C handling; says at the end where the model is.
int run_training_command(const TrainCommand& command);

// The training loop alone, with a bar on stderr.
train::Outcome train_with_progress(const TrainCommand& command,
                                   std::vector<train::StepRecord>* records,
                                   dist::Group& group = dist::alone());

}  // namespace dmc::cli

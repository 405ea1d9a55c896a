// The training loop: stages, optimizer, data, checkpoints, log and progress.
#pragma once

#include <functional>

#include "models/decoder.h"
#include "train/options.h"

namespace dmc::train {

// One line of OUT/train.jsonl, and what the progress bar shows.
struct StepRecord {
  int64_t step = 0;  // counted from 1 over all stages
  std::string stage;
  double loss = 0.0;        // nats per token, language model alone
  double extra_loss = 0.0;  // the stage's own (compression)
  double cr = 1.0, wanted_cr = 1.0;
  double compression_weight = 0.0;
  double learning_rate = 0.0, gradient_norm = 0.0;
  int64_t tokens = 0;  // seen so far
  double tokens_per_second = 0.0;
};

enum class Outcome { kFinished, kInterrupted };

// Runs (or resumes) `options` and writes into options.out_dir: train.jsonl, checkpoint.safetensors
// while it runs, and at the end the model as a Hugging Face directory. `interrupted` is asked once
// a step; when true, a checkpoint is written and the run ends. `on_step` may be empty.
Outcome run_training(const TrainOptions& options, const std::function<bool()>& interrupted,
                     const std::function<void(const StepRecord&)>& on_step);

}  // namespace dmc::train

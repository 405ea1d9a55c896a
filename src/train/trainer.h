// The training loop: stages, optimizer, data, checkpoints, log and progress.
#pragma once

#include <functional>

#include "models/decoder.h"
#include "train/options.h"
#include "train/step_log.h"

namespace dmc::train {

enum class Outcome { kFinished, kInterrupted };

// Runs (or resumes) `options` and writes into options.out_dir: train.jsonl, checkpoint.safetensors
// while it runs, and at the end the model as a Hugging Face directory; likewise on the way, in
// folders of their own, for options.retrofit.save_at_cr. `interrupted` is asked once a step; when
// true, a checkpoint is written and the run ends. `on_step` may be empty.
Outcome run_training(const TrainOptions& options, const std::function<bool()>& interrupted,
                     const std::function<void(const StepRecord&)>& on_step);

}  // namespace dmc::train

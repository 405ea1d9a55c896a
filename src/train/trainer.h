// The training loop: stages, optimizer, data, checkpoints, log and progress.
#pragma once

#include <filesystem>
#include <functional>

#include "dist/group.h"
#include "nn/decoder.h"
#include "train/model_card.h"
#include "train/options.h"
#include "train/step_log.h"

namespace dmc::train {

enum class Outcome { kFinished, kInterrupted };

// Error(kInvalidArgument) for options that cannot be trained with, as run_training() has it, too.
void check_run(const TrainOptions& options, int ranks);

// What is measured on held-out text, by who can serve models. The first rank is the one that asks.
struct Judge {
  // The model in a folder as it is served, every options.evaluate_every steps, but while the
  // decision channel fades: then there are no decisions to serve with.
  std::function<HeldOut(const std::filesystem::path& model)> measure;
  // A retrofit's result, after all training.
  std::function<Verdict(const std::filesystem::path& model)> conclude;
};

// Runs (or resumes) `options` and writes into options.out_dir: train.jsonl, checkpoint.safetensors
// while it runs, and at the end the model as a Hugging Face directory; likewise on the way, in
// folders of their own, for options.retrofit.save_at_cr. `interrupted` is asked once a step; when
// true, a checkpoint is written and the run ends. `on_step` and what `judge` has may be empty; a
// verdict goes into the model card.
//
// Every rank of `group` calls it with the same options, and has the same share of each batch's
// rows; the run is that of one process but for the order of sums, and may be resumed on another
// number of them. The first rank writes all that is written. All ranks read the folders of
// `options` (the checkpoint too), and all end when one is interrupted.
Outcome run_training(const TrainOptions& options, const std::function<bool()>& interrupted,
                     const std::function<void(const StepRecord&)>& on_step,
                     dist::Group& group = dist::alone(), const Judge& judge = {});

}  // namespace dmc::train

// The model folder that a retrofit leaves: plain weights, dmc_config, model card, tokenizer; and an
// adapter that was trained alone also in a file of its own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nn/decoder.h"
#include "train/model_card.h"
#include "train/options.h"
#include "train/step_log.h"

namespace dmc::train {

// Where the run stands when it writes a model.
struct RetrofitState {
  std::string stage;
  double target_cr = 1.0;  // the ratio that this model was trained for
  int64_t tokens = 0;      // seen so far
  double decision_offset = 0.0;
  // Of the last step; nothing, if a resumed run had none left to do.
  StepRecord last;
  std::vector<std::vector<double>> cr_by_head;  // TrainAttention::cr_by_head
  Verdict verdict;                              // empty: not known (yet)
};

// Writes the model as it is served, with the factor on its decisions folded in; `model` itself
// stays as it is trained.
void write_retrofitted(const nn::Decoder& model, const TrainOptions& options,
                       const RetrofitState& state, const std::filesystem::path& dir);

// Its model card alone.
void write_card(const nn::Decoder& model, const TrainOptions& options, const RetrofitState& state,
                const std::filesystem::path& dir);

// Name of the folder in OUT for the model of a ratio on the way (--save-at-cr): "cr-2", "cr-2.5".
std::string ratio_folder(double cr);

}  // namespace dmc::train

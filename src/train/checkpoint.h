// A training run's state in one file, written atomically: whatever happens during a save, the
// checkpoint before it survives whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nn/decoder.h"
#include "text/corpus.h"
#include "train/optimizer.h"

namespace dmc::train {

struct Progress {
  int64_t step = 0;  // steps done, over all stages
  int64_t tokens = 0;
  double compression_weight = 0.0, decision_offset = 0.0;
  size_t ratios_saved = 0;                       // of RetrofitOptions::save_at_cr
  std::vector<text::TokenFeed::Position> feeds;  // one for each row of a batch
};

std::filesystem::path checkpoint_path(const std::filesystem::path& out_dir);

// Written by the group's first rank; a collective.
void save_checkpoint(const TrainOptions& options, const nn::Decoder& model, const AdamW& optimizer,
                     const Progress& progress, const dist::Group& group = dist::alone());

// Fills in place what the run trains: parameters that require gradients, and this rank's share of
// the optimizer's state. Every rank reads the file itself. It may be of any number of ranks.
// Error(kData) when the file does not fit the model, Error(kInvalidArgument) naming the first
// option in which `options` differ from the run's own.
Progress load_checkpoint(const TrainOptions& options, nn::Decoder& model, AdamW& optimizer);

}  // namespace dmc::train

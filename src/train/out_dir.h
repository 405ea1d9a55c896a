// The folder that a training run writes into: whose it is, and what may be taken out of it.
#pragma once

#include "train/options.h"

namespace dmc::train {

// To be called before any rank of a run begins. Error(kInvalidArgument) naming --out for a folder
// that holds something, unless options.resume. With options.overwrite models, log and checkpoint of
// earlier runs are taken out of it.
void claim_out_dir(const TrainOptions& options);

// Makes the folder. Error(kInvalidArgument) naming --out, --resume or --save-at-cr for a checkpoint
// that is there and should not be, or the other way round, and for models of an earlier run.
void prepare_out_dir(const TrainOptions& options);

}  // namespace dmc::train

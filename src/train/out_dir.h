// The folder that a training run writes into: whose it is, and what may be taken out of it.
#pragma once

#include <memory>

#include "train/options.h"
#include "train/out_lock.h"

namespace dmc::train {

// To be called before any rank of a run begins. Error(kInvalidArgument) naming --out for a folder
// that holds something, unless options.resume or options.overwrite, and naming --resume where there
// is no checkpoint to go on from.
void check_out_dir(const TrainOptions& options);

// The same for the first rank, which keeps what it returns as long as the run lasts: locks the
// folder (OutLock's errors), makes it where it is missing, and takes out of it what a killed run
// left half-written, and with options.overwrite also models, log and checkpoint of earlier runs.
[[nodiscard]] std::unique_ptr<OutLock> claim_out_dir(const TrainOptions& options);

// Makes the folder. Error(kInvalidArgument) naming --out, --resume or --save-at-cr for a checkpoint
// that is there and should not be, or the other way round, and for models of an earlier run.
void prepare_out_dir(const TrainOptions& options);

}  // namespace dmc::train

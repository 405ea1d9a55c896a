// Where a run computes, from its options.
#pragma once

#include "nn/placement.h"
#include "train/options.h"

namespace dmc::train {

at::Device device_of(const TrainOptions& options);
nn::Placement placement_of(const TrainOptions& options);

// Error(kInvalidArgument) naming the flag if this machine or this program cannot run `options` on
// the device they ask for.
void require_device(const TrainOptions& options);

}  // namespace dmc::train

// How far a model's positions reach, and the rotary table for them.
#pragma once

#include <memory>

#include "io/model_config.h"
#include "kernels/rope.h"

namespace dmc::runtime {

// `wanted` tokens of context, or with 0 the model's own. Error(kUsage) if it has learned fewer.
int64_t choose_positions(const io::ModelConfig& config, int64_t wanted);

// Null for a family without rotary embedding.
std::unique_ptr<const kernels::RopeTable> make_rope(const io::ModelConfig& config,
                                                    int64_t positions);

}  // namespace dmc::runtime

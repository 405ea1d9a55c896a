// How far a model's positions reach, and the rotary table for them.
#pragma once

#include <memory>

#include "kernels/rope.h"
#include "model/model_config.h"

namespace dmc::runtime {

// `wanted` tokens of context, or with 0 the model's own. Error(kInvalidArgument) if it has learned
// fewer.
int64_t choose_positions(const model::ModelConfig& config, int64_t wanted);

// Null for a family without rotary embedding.
std::unique_ptr<const kernels::RopeTable> make_rope(const model::ModelConfig& config,
                                                    int64_t positions);

}  // namespace dmc::runtime

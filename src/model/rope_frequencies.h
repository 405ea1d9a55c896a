// How fast each channel pair turns under rotary embedding.
#pragma once

#include <vector>

#include "model/model_config.h"

namespace dmc::model {

// Radians a position for each of the head_dim / 2 pairs, scaling applied; empty for a model without
// rotary embedding.
std::vector<double> rope_frequencies(const model::ModelConfig& config);

}  // namespace dmc::model

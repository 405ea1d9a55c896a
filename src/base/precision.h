// How users name the precision of weights and of slots: f32, bf16, int8 ...
#pragma once

#include <map>
#include <string>

#include "base/dtype.h"

namespace dmc {

using Precisions = std::map<std::string, DType>;

const Precisions& weight_precisions();  // of weights in memory
const Precisions& slot_precisions();    // of a cache's closed slots

}  // namespace dmc

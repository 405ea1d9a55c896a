// Weights of 8 bits in files, as the compressed-tensors library lays them out ("int-quantized"): a
// matrix MODULE.weight [out, in] of int8 beside MODULE.weight_scale [out, 1], symmetric, one scale
// for each output; what config.json says of it stands under quantization_config.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

#include "model/families/family.h"

namespace dmc::model {

// Names of the matrices that a checkpoint may hold so: those stored as [out, in]. The token
// embedding, also as a tied head, is not among them.
std::set<std::string> int8_matrices(const DecoderLayout& layout);

// Whether config.json asks for such weights; Error(kData) if it asks for another quantization.
bool read_int8_weights(const JsonFields& fields);
// The value of quantization_config for a checkpoint whose int8_matrices() are all stored so.
nlohmann::ordered_json int8_quantization(const DecoderLayout& layout);

}  // namespace dmc::model

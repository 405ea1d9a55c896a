// The form in which NVIDIA publishes models of Dynamic Memory Sparsification
// (NVIDIA/Model-Optimizer, experimental/dms): a dense family's config.json with keys `dms_*` at its
// top, and nothing else.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

#include "base/json_fields.h"
#include "model/model_config.h"

namespace dmc::model {

// What those keys say, if there are any; Error(kData) for values that this program does not run.
std::optional<DmcConfig> read_flat_dms(const JsonFields& fields);

// What such a model's architecture is called, after the family's.
std::string flat_dms_architecture(std::string_view dense_architecture);

// Leaves what a dense model has.
void erase_flat_dms(nlohmann::ordered_json* root);

// The adapter's modules, where decisions have one.
inline constexpr const char* kFlatDmsNorm = "dms_proj_alpha_norm";
inline constexpr const char* kFlatDmsProjection = "dms_proj_alpha";

}  // namespace dmc::model

// Shapes of well-known models by name, for planning without their files.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/model_config.h"

namespace dmc::model {

// "llama-2-7b", "llama-3-8b", ...; none if the name is not in the table. Only what decides sizes is
// set: no token ids, no rotary scaling.
std::optional<model::ModelConfig> published_model(std::string_view name);
std::string published_names();  // separated by commas, for messages

}  // namespace dmc::model

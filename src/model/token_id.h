// Token ids that an option or a request names.
#pragma once

#include <cstdint>
#include <string>

#include "model/model_config.h"

namespace dmc::model {

// Error(kInvalidArgument) about the option `field` if the model has no token `id`.
void require_token(const ModelConfig& config, const std::string& field, int64_t id);

}  // namespace dmc::model

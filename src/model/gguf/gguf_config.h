// What the metadata of a GGUF file says of its model, as a config.json says it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/gguf.h"

namespace dmc::model {

// The keys that the family reads, and those that transformers needs. Error(kData) naming file and
// key for what is missing or asks for something that no family of ours has.
nlohmann::ordered_json gguf_config(const GgufFile& file);

}  // namespace dmc::model

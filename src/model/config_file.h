// config.json of a Hugging Face model directory, of any family in the table.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json_fields.h"
#include "model/model_config.h"

namespace dmc::model {

// Reads MODEL/config.json, or what a GGUF file says in its place. A missing or ill-typed key, a
// feature that is not implemented or a family that is not in the table is Error(kData) naming file
// and key; never a silent default.
model::ModelConfig read_model_config(const std::filesystem::path& model);

// The object dmc_config alone, as it also stands in an adapter's file (adapter.h).
model::DmcConfig read_dmc_config(const JsonFields& dmc);
nlohmann::json dmc_config_json(const model::DmcConfig& dmc);

// The text of a config.json for `config`: source_json's keys kept, ours written over them;
// architectures is the family's DMC name exactly if config.dmc is set.
// `weights_dtype` ("float32", ...) is what the key dtype then says; "": as it was.
std::string model_config_json(const model::ModelConfig& config,
                              const std::string& weights_dtype = "");

}  // namespace dmc::model

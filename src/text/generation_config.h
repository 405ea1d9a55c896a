// What a model says about when a text is complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "text/tokenizer.h"

namespace dmc::text {

// Tokens that end a chat's reply beside config.json's: eos_token_id of generation_config.json, and
// tokenizer_config.json's eos_token. Either may be missing. Error(kData) naming file and key.
std::vector<int64_t> reply_stop_ids(const std::filesystem::path& model, const Tokenizer& tokenizer);

}  // namespace dmc::text

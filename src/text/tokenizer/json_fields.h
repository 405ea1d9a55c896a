// JSON that several tokenizer files share.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "text/tokenizer/added_tokens.h"

namespace dmc::text {

// Error(kData) naming `origin` for what is not a whole number below Vocabulary::kMostTokens.
int32_t read_token_id(const nlohmann::json& id, const std::string& origin);

// An entry of "added_tokens" or "added_tokens_decoder".
AddedToken read_added_token(const nlohmann::json& entry, int32_t id);

}  // namespace dmc::text

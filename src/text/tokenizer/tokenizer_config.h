// What tokenizer_config.json says beside a tokenizer file that leaves it open.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer/added_tokens.h"

namespace dmc::text {

struct TokenizerConfig {
  std::string tokenizer_class;  // "" if not said
  std::optional<bool> add_bos_token, add_eos_token;
  std::optional<bool> legacy;  // Llama: whether a text after a special token gets a space, too
  std::string bos_token, eos_token, unk_token;  // "" if not said
  std::vector<AddedToken> added;                // added_tokens_decoder
};

// Reads MODEL/tokenizer_config.json; all defaults if there is none. Error(kData) naming the file.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& model);

}  // namespace dmc::text

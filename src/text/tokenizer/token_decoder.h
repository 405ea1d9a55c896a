// The "decoder" of a tokenizer.json: what text each token stands for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace dmc::text {

struct TokenDecoder {
  std::vector<std::function<void(std::string* token)>> steps;
  bool strip_first_space = false;  // the decoded text's first space is not part of it

  std::string operator()(std::string token) const {
    for (const auto& step : steps) step(&token);
    return token;
  }
};

// Error(kData) naming `origin` for a type or setting that is not supported. A null spec joins
// tokens by spaces.
TokenDecoder read_token_decoder(const nlohmann::json& spec, const std::string& origin);

}  // namespace dmc::text

// The "decoder" of a tokenizer.json: what text each token stands for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/work.h"

namespace dmc::text {

struct TokenDecoder {
  std::vector<std::function<void(std::string* token, Work& work)>> steps;
  bool strip_first_space = false;  // the decoded text's first space is not part of it

  // Error(kData) if that is more than `work` allows.
  std::string operator()(std::string token, Work& work) const {
    for (const auto& step : steps) {
      step(&token, work);
      work.charge(token.size());
    }
    return token;
  }
};

// Error(kData) naming `origin` for a type or setting that is not supported. A null spec joins
// tokens by spaces.
TokenDecoder read_token_decoder(const nlohmann::json& spec, const std::string& origin);

}  // namespace dmc::text

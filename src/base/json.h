// JSON from files nobody vouches for: parsed with limits, errors name the file.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace dmc {

// `origin` is the file's path for messages. Error(kData) for what is not JSON, nests deeper than 64
// or repeats a key of one object.
nlohmann::json parse_json(std::string_view text, const std::string& origin);

}  // namespace dmc

// JSON from files nobody vouches for: parsed with limits, errors name the file.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace dmc {

constexpr size_t kMostJsonValues = size_t{1} << 24;

// `origin` is the file's path for messages. Error(kData) for what is not JSON, nests deeper than
// 64, repeats a key of one object or holds more values (keys not counted) than `most_values`. Time
// and memory are linear in the text.
nlohmann::json parse_json(std::string_view text, const std::string& origin,
                          size_t most_values = kMostJsonValues);

}  // namespace dmc

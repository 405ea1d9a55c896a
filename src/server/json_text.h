// JSON written by hand where it is written for every token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dmc::server {

// `text` is valid UTF-8. Line separators of Unicode are escaped: some clients split lines at them.
void append_json_string(std::string* out, std::string_view text);
std::string json_string(std::string_view text);
// The shortest text that reads back as this float, so that equal numbers look equal. What JSON
// cannot say becomes the largest of its sign (-inf: -9999).
void append_json_number(std::string* out, float value);
std::string json_number(double value);

}  // namespace dmc::server

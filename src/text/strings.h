// Text as the published evaluations handle it: Python's string functions on UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::text {

// Without white space (Unicode's, as str.strip() means it) at the end, or at both ends.
std::string_view right_stripped(std::string_view text);
std::string_view stripped(std::string_view text);

int64_t count_characters(std::string_view text);  // code points

// str.capitalize() for ASCII letters; others stay as they are.
std::string capitalized(std::string_view text);

std::string replace_all(std::string_view text, std::string_view what, std::string_view with);

std::vector<std::string_view> split_lines(std::string_view text);  // at \n or \r\n

}  // namespace dmc::text

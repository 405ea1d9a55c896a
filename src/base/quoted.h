// Text from files and requests in sentences for people: an error, a log line, a progress bar. What
// a model writes is not shown through this: users expect it as it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dmc {

constexpr size_t kLongestQuote = 80;  // characters

// `text` on one line and harmless to a terminal: control characters, those that turn the direction
// of writing and bytes that are not UTF-8 are written as \n, \x1b or \u202e; what is longer than
// `most` characters is cut off, and "..." stands for it.
std::string printable(std::string_view text, size_t most = kLongestQuote);

// The same between double quotes; a quote in it is written as \".
std::string in_quotes(std::string_view text, size_t most = kLongestQuote);

}  // namespace dmc

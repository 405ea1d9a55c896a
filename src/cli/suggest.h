// "Did you mean ...?" for a mistyped word.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace dmc::cli {

// The candidate nearest to `word` in edit distance, if near enough to be meant; else "".
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace dmc::cli

// For tests: is a piece of HTML or SVG well-formed in the strict way this project writes it (every
// element closed, attributes quoted, no bare "<" or "&" in text)?
#pragma once

#include <string>
#include <string_view>

namespace dmc::report {

// The first problem as a sentence with its place; empty if there is none. The text of <style> and
// <script> is skipped.
std::string markup_problem(std::string_view markup);

int count_of(std::string_view text, std::string_view part);

}  // namespace dmc::report

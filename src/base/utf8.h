// UTF-8 checks and code points.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dmc {

// Length of the well-formed sequence at the start of `bytes` (Unicode 15, table 3-7), or 0.
size_t utf8_sequence_length(std::string_view bytes);

// True if `bytes` could become well-formed by appending more bytes: an unfinished character.
bool utf8_is_unfinished(std::string_view bytes);

// Takes the well-formed sequence at the start of *text (which must have one) off it.
char32_t take_code_point(std::string_view* text);

// `bytes` with every maximal ill-formed part replaced by U+FFFD.
std::string utf8_repaired(std::string_view bytes);

bool utf8_is_valid(std::string_view bytes);

void append_utf8(char32_t code_point, std::string* out);

}  // namespace dmc

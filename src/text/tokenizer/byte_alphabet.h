// How GPT-2 style vocabularies write bytes: printable Latin-1 stands for itself, the other bytes
// for U+0100 onwards, in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dmc::text {

// The bytes that a token stands for, or nothing if it is not written in this alphabet.
std::optional<std::string> bytes_of_token(std::string_view token);

}  // namespace dmc::text

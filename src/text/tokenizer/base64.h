// Bytes written as text, as some tokenizer files hold them.
#pragma once

#include <string>
#include <string_view>

namespace dmc::text {

// Strict: whole groups of four, padding only at the end. "" if `text` is not base64.
std::string from_base64(std::string_view text);

}  // namespace dmc::text

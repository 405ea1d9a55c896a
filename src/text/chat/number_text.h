// Numbers as Python prints them.
#pragma once

#include <string>

namespace dmc::text::chat {

// repr() of a float: the fewest digits that read back as the same number.
std::string float_text(double value);

}  // namespace dmc::text::chat

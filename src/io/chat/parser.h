// From the text of a template to the tree that runs.
#pragma once

#include <string_view>

#include "io/chat/lexer.h"
#include "io/chat/statements.h"

namespace dmc::io::chat {

// Throws SyntaxError, also for blocks and expressions nested deeper than 100 levels.
Block parse_template(std::string_view source);

}  // namespace dmc::io::chat

// From the text of a template to the tree that runs.
#pragma once

#include <string_view>

#include "text/chat/lexer.h"
#include "text/chat/statements.h"

namespace dmc::text::chat {

// Throws SyntaxError, also for blocks and expressions nested deeper than 100 levels.
Block parse_template(std::string_view source);

}  // namespace dmc::text::chat

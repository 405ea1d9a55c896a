// What the terminal behind a stream can show. Colour is used only on a terminal, and never when
// the user has set NO_COLOR (no-color.org) or TERM=dumb.
#pragma once

#include <ostream>
#include <string>
#include <string_view>

namespace dmc {

bool is_terminal(const std::ostream& out);    // only std::cout and std::cerr can be one
int terminal_width(const std::ostream& out);  // columns; 80 when it is not known
bool color_enabled(const std::ostream& out);
bool utf8_enabled();  // the locale's character set, from LC_ALL, LC_CTYPE or LANG

// Escape sequences around `text`; `text` as it is when `enabled` is false.
std::string bold(std::string_view text, bool enabled);
std::string dim(std::string_view text, bool enabled);
// Colours are numbers of the 256-colour palette.
std::string on_color(std::string_view text, int foreground, int background, bool enabled);

// Columns that UTF-8 `text` takes: its code points (no wide or combining characters are expected).
size_t display_width(std::string_view text);
// The first `columns` columns of UTF-8 `text`, never half a code point.
std::string_view cut_to_width(std::string_view text, size_t columns);

}  // namespace dmc

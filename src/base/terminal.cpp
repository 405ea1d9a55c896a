#include "base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>

namespace dmc {
namespace {

constexpr int kDefaultWidth = 80;

// The file descriptor behind `out`, or -1.
int descriptor(const std::ostream& out) {
  if (&out == &std::cout) return STDOUT_FILENO;
  if (&out == &std::cerr) return STDERR_FILENO;
  return -1;
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

bool starts_code_point(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

std::string escaped(std::string_view code, std::string_view text, bool enabled) {
  if (!enabled) return std::string(text);
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

}  // namespace

bool is_terminal(const std::ostream& out) {
  const int fd = descriptor(out);
  return fd >= 0 && isatty(fd) == 1;
}

int terminal_width(const std::ostream& out) {
  winsize size{};
  const bool known = is_terminal(out) && ioctl(descriptor(out), TIOCGWINSZ, &size) == 0;
  return known && size.ws_col > 0 ? size.ws_col : kDefaultWidth;
}

bool color_enabled(const std::ostream& out) {
  return is_terminal(out) && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
}

bool utf8_enabled() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string_view value = environment(name);
    if (value.empty()) continue;  // an empty variable counts as unset
    return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos;
  }
  return false;
}

std::string bold(std::string_view text, bool enabled) { return escaped("1", text, enabled); }
std::string dim(std::string_view text, bool enabled) { return escaped("2", text, enabled); }

std::string on_color(std::string_view text, int foreground, int background, bool enabled) {
  return escaped("38;5;" + std::to_string(foreground) + ";48;5;" + std::to_string(background), text,
                 enabled);
}

size_t display_width(std::string_view text) {
  size_t width = 0;
  for (const char byte : text) width += starts_code_point(byte) ? 1 : 0;
  return width;
}

std::string_view cut_to_width(std::string_view text, size_t columns) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!starts_code_point(text[i])) continue;
    if (width == columns) return text.substr(0, i);
    width += 1;
  }
  return text;
}

}  // namespace dmc

#include "cli/line_editor.h"

#ifdef DMC_LIBEDIT
#include <editline/readline.h>
#include <sys/stat.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <iostream>

namespace dmc::cli {

std::filesystem::path history_file() {
  const char* const state = std::getenv("XDG_STATE_HOME");
  const char* const home = std::getenv("HOME");
  if (state != nullptr && *state == '/') return std::filesystem::path(state) / "dmc/history";
  if (home != nullptr && *home == '/')
    return std::filesystem::path(home) / ".local/state/dmc/history";
  return {};
}

#ifdef DMC_LIBEDIT

// What the user's terminal shows goes to the standard error, as progress does; a reply alone goes
// to the standard output. A history that cannot be read or written is none.
LineEditor::LineEditor(std::filesystem::path history) : history_(std::move(history)) {
  constexpr int kLines = 1000;
  rl_outstream = stderr;
  rl_initialize();
  using_history();
  stifle_history(kLines);
  if (!history_.empty()) ::read_history(history_.c_str());
}

LineEditor::~LineEditor() {
  if (history_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(history_.parent_path(), ignored);
  const mode_t mask = ::umask(0077);
  ::write_history(history_.c_str());
  ::umask(mask);
}

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  char* const typed = ::readline(prompt.c_str());
  if (typed == nullptr) return std::nullopt;
  std::string line = typed;
  std::free(typed);
  if (!line.empty()) ::add_history(line.c_str());
  return line;
}

#else

LineEditor::LineEditor(std::filesystem::path history) : history_(std::move(history)) {}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  std::cerr << prompt << std::flush;
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

#endif

}  // namespace dmc::cli

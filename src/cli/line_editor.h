// Lines that somebody types: with editing and a history where the build has libedit.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace dmc::cli {

// Where a program keeps what was typed: below XDG_STATE_HOME or ~/.local/state; empty if neither is
// known.
std::filesystem::path history_file();

class LineEditor {
 public:
  // For a terminal. `history` is read now, and written at the end, for its owner alone to read;
  // empty: nothing is kept.
  explicit LineEditor(std::filesystem::path history);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The next line, without its end; nothing at the end of the input.
  std::optional<std::string> read(const std::string& prompt);

 private:
  std::filesystem::path history_;
};

}  // namespace dmc::cli

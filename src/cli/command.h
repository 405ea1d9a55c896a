// A command: one file cmd_<name>.cpp with one setup function, one line in command_table.cpp.
#pragma once

#include <functional>
#include <span>
#include <string_view>

namespace CLI {
class App;
}

namespace dmc::cli {

// Declares the command's options on `app` and returns what runs it; the result is the exit code.
// Errors are thrown as dmc::Error.
using Setup = std::function<int()> (*)(CLI::App& app);

struct Command {
  std::string_view name;
  std::string_view summary;  // one line for `dmc --help`
  Setup setup;
};

std::span<const Command> commands();  // command_table.cpp

}  // namespace dmc::cli

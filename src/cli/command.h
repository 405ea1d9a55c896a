// A command: one file cmd_<name>.cpp with one setup function, one line in command_table.cpp.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

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
  Setup setup = nullptr;     // null: dmc-train has it (training_program.h)
};

std::vector<Command> commands();  // of this program: command_table.cpp, or dmc-train's

}  // namespace dmc::cli

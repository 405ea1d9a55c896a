// The commands that use LibTorch are in a program of their own, dmc-train: loading LibTorch takes
// many times as long as all the rest of a short command. `dmc` becomes that program when it is
// asked for one of them.
#pragma once

#include <filesystem>
#include <vector>

#include "cli/command.h"

namespace dmc::cli {

// Their names and summaries, without setup functions: those are in dmc-train alone.
std::vector<Command> training_commands();

// Where dmc-train is for the program `dmc`: beside it (a build), or where both were installed.
// Empty: it is in neither place.
std::filesystem::path training_program(const std::filesystem::path& dmc);

// Becomes dmc-train with the arguments of this program, whose first is the command. Returns only by
// Error(kUnavailable): dmc-train is not there or cannot be started.
[[noreturn]] void become_training_program(char* const* arguments);

}  // namespace dmc::cli

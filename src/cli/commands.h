// The setup function of every command (cmd_<name>.cpp), for command_table.cpp.
#pragma once

#include "cli/command.h"

namespace dmc::cli {

std::function<int()> setup_run(CLI::App& app);
std::function<int()> setup_serve(CLI::App& app);
std::function<int()> setup_eval(CLI::App& app);
std::function<int()> setup_sweep(CLI::App& app);
std::function<int()> setup_bench(CLI::App& app);
std::function<int()> setup_inspect(CLI::App& app);
std::function<int()> setup_plan(CLI::App& app);
std::function<int()> setup_train(CLI::App& app);
std::function<int()> setup_retrofit(CLI::App& app);
std::function<int()> setup_convert(CLI::App& app);
std::function<int()> setup_demo(CLI::App& app);

}  // namespace dmc::cli

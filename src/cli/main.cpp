#include <CLI/CLI.hpp>

#include <iostream>

#include "base/error.h"
#include "cli/commands.h"

int main(int argc, char** argv) {
  CLI::App app("dmc");
  app.require_subcommand(1);
  auto* train = app.add_subcommand("train");
  auto run_train = dmc::cli::setup_train(*train);
  auto* retrofit = app.add_subcommand("retrofit");
  auto run_retrofit = dmc::cli::setup_retrofit(*retrofit);
  CLI11_PARSE(app, argc, argv);
  try {
    return train->parsed() ? run_train() : run_retrofit();
  } catch (const dmc::Error& error) {
    std::cerr << "dmc: " << error.what() << "\n";
    return error.exit_code();
  }
}

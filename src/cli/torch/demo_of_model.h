// dmc demo -m MODEL: what each policy costs and saves on a model of the user's own.
#pragma once

#include <filesystem>

#include "cli/options.h"

namespace dmc::cli {

// What `dmc demo` was asked for.
struct DemoCommand {
  std::filesystem::path out = "demo-out";  // folder for report.html and what is trained
  bool quick = false;
  double cr = 4.0;       // with a model of the user's own: of the training-free policies
  ModelOptions options;  // threads and device, of all models; dir: empty for the built-in story
};

// Scores and times the model dense, with what it was retrofitted for, and with each policy that
// needs no training at the same ratio; prints a table and writes the report. Returns the exit code.
int demonstrate_model(const DemoCommand& demo);

}  // namespace dmc::cli

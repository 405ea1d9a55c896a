// dmc demo -m MODEL: what each policy costs and saves on a model of the user's own.
#pragma once

#include <filesystem>

#include "cli/options.h"

namespace dmc::cli {

struct ModelDemo {
  ModelOptions options;
  std::filesystem::path out;  // folder for report.html
  bool quick = false;
  double cr = 4.0;  // of policies that need no training, unless the model has a policy of its own
};

// Scores and times the model dense, with what it was retrofitted for, and with each policy that
// needs no training at the same ratio; prints a table and writes the report. Returns the exit code.
int demonstrate_model(const ModelDemo& demo);

}  // namespace dmc::cli

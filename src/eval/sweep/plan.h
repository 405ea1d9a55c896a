// Which cells a sweep has: models x precisions x policies x ratios x tasks, as far as they go
// together.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/sweep/record.h"

namespace dmc::eval {

struct SweepModel {
  std::string name;    // its folder
  std::string method;  // the policy it was retrofitted for; empty: none
};

struct SweepAxes {
  std::vector<SweepModel> models;
  std::vector<std::string> policies;  // empty: all that are worth comparing on each model
  std::vector<double> crs;
  std::vector<std::string> kvs, tasks;
  std::function<std::string(const std::string& task)> size_of;  // SweepCell::size
};

// Cells that share all but the task stand together. Without `policies`, a dense model runs dense
// and with every policy that has a budget, a retrofitted one with its own. A learned policy is
// measured as it is and held at each ratio. A policy that compresses a prompt when it ends is left
// out of tasks that have none. Error(kInvalidArgument) for an unknown policy or task, or when
// nothing is left.
std::vector<SweepCell> plan_sweep(const SweepAxes& axes);

}  // namespace dmc::eval

// A sweep's records as curves: one a policy (and model, and precision), a point a ratio.
#pragma once

#include <string>
#include <vector>

#include "eval/sweep/record.h"

namespace dmc::eval {

// One setting's result on one task.
struct SweepPoint {
  const SweepRecord* record;
  double quality, error;     // the task's quoted metric, and its standard error (NaN: unknown)
  double ratio;              // the compression ratio reached
  double bytes, decode;      // per token of cache, and tokens per second; NaN: not measured
  bool on_frontier = false;  // no other has at least its ratio and a better quality
};

struct SweepSeries {
  std::string label;
  std::string policy, model, kv;
  std::vector<SweepPoint> points;  // by ratio reached, rising
};

struct SweepTask {
  std::string name, size;  // SweepCell::task and size: others are not comparable
  std::string metric;      // the quoted one
  bool lower_is_better = false;
  std::vector<SweepSeries> series;
};

// By task, in the order of their first records; kSpeedTask is in the points of the others.
std::vector<SweepTask> sweep_tasks(const std::vector<SweepRecord>& records);

std::string model_name(const std::string& folder);  // its last part

// Whether a smaller value of the metric of that name is the better one.
bool lower_is_better(const std::string& metric);

}  // namespace dmc::eval

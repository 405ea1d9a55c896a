// The scores of several tasks, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace dmc::eval {

struct NamedScore {
  std::string task;
  TaskScore score;
};

// CS-QA: the mean of acc_norm (acc where a task has no other) over the six commonsense tasks, if
// all six are there.
std::optional<double> commonsense_average(const std::vector<NamedScore>& scores);

void print_scores(std::ostream& out, const std::vector<NamedScore>& scores);

// {"tasks": [{"task", "items", METRIC, METRIC_stderr, ..., "compression_ratio"}], "cs_qa"}.
nlohmann::ordered_json to_json(const std::vector<NamedScore>& scores);

}  // namespace dmc::eval

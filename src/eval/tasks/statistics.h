// Means and their standard errors.
#pragma once

#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace dmc::eval {

// The mean and its standard error, sd / sqrt(n) with Bessel's correction; NaN for fewer than two.
Metric mean_metric(const std::string& name, const std::vector<double>& values);

// The mean over all values of all groups; the standard errors of the groups are pooled.
Metric pooled_metric(const std::string& name, const std::vector<std::vector<double>>& groups);

}  // namespace dmc::eval

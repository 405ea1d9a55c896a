#include "eval/tasks/statistics.h"

#include <numeric>

namespace dmc::eval {

Metric mean_metric(const std::string& name, const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return {name, NAN, NAN};
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (double value : values) squares += (value - mean) * (value - mean);
  return {name, mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : NAN};
}

Metric pooled_metric(const std::string& name, const std::vector<std::vector<double>>& groups) {
  double sum = 0.0, squares = 0.0, count = 0.0;
  for (const auto& group : groups) {
    const auto n = static_cast<double>(group.size());
    const Metric metric = mean_metric(name, group);
    sum += metric.value * n;
    squares += (n - 1) * metric.standard_error * metric.standard_error * n;
    count += n;
  }
  const double variance = squares / (count - static_cast<double>(groups.size()));
  return {name, sum / count, std::sqrt(variance / count)};
}

}  // namespace dmc::eval

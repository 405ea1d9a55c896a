#include "eval/tasks/summary.h"

#include <algorithm>

#include "base/human.h"
#include "base/table.h"

namespace dmc::eval {

namespace {

void print_grid(std::ostream& out, const std::string& title, const Grid& grid) {
  std::vector<Table::Column> columns = {{grid.row_label + " \\ " + grid.column_label}};
  for (const std::string& column : grid.columns) columns.push_back({column});
  Table table(columns);
  for (size_t i = 0; i < grid.rows.size(); ++i) {
    std::vector<std::string> cells = {grid.rows[i]};
    for (double value : grid.values[i]) cells.push_back(fixed(value, 2));
    table.add_row(std::move(cells));
  }
  out << "\n" << title << "\n";
  table.print(out);
}

nlohmann::ordered_json to_json(const Grid& grid) {
  return {{grid.row_label, grid.rows}, {grid.column_label, grid.columns}, {"values", grid.values}};
}

}  // namespace

std::optional<double> commonsense_average(const std::vector<NamedScore>& scores) {
  double sum = 0.0;
  int64_t count = 0;
  for (const Task& task : tasks()) {
    if (!task.commonsense) continue;
    const auto found = std::ranges::find(scores, task.name, &NamedScore::task);
    if (found == scores.end()) return std::nullopt;
    sum += found->score.metrics.back().value;
    ++count;
  }
  return sum / static_cast<double>(count);
}

void print_scores(std::ostream& out, const std::vector<NamedScore>& scores) {
  Table table({{"task", Align::kLeft},
               {"items"},
               {"metric", Align::kLeft},
               {"value"},
               {"std. error"},
               {"CR"}});
  for (const auto& [task, score] : scores) {
    for (const Metric& metric : score.metrics) {
      const bool known = std::isfinite(metric.standard_error);
      table.add_row({task, std::to_string(score.items), metric.name, fixed(metric.value, 4),
                     known ? fixed(metric.standard_error, 4) : "",
                     fixed(score.compression_ratio, 2)});
    }
  }
  if (const auto average = commonsense_average(scores)) {
    table.add_row({"CS-QA", "", "mean", fixed(*average, 4), "", ""});
  }
  table.print(out);
  for (const auto& [task, score] : scores) {
    for (const Grid& grid : score.grids) {
      print_grid(out, task + ", " + score.metrics.back().name, grid);
    }
  }
}

nlohmann::ordered_json to_json(const std::vector<NamedScore>& scores) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [task, score] : scores) {
    nlohmann::ordered_json entry = {{"task", task}, {"items", score.items}};
    for (const Metric& metric : score.metrics) {
      entry[metric.name] = metric.value;
      if (std::isfinite(metric.standard_error)) {
        entry[metric.name + "_stderr"] = metric.standard_error;
      }
    }
    entry["compression_ratio"] = score.compression_ratio;
    for (const Grid& grid : score.grids) entry["grids"].push_back(to_json(grid));
    list.push_back(std::move(entry));
  }
  nlohmann::ordered_json json = {{"tasks", list}};
  if (const auto average = commonsense_average(scores)) json["cs_qa"] = *average;
  return json;
}

}  // namespace dmc::eval

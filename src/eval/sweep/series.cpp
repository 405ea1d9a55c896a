#include "eval/sweep/series.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

namespace dmc::eval {
namespace {

// Two policies that are within rounding of each other share the frontier.
constexpr double kSame = 1e-9;

double metric_of(const SweepRecord* record, const char* name) {
  if (record == nullptr) return NAN;
  const auto& metrics = record->score.metrics;
  const auto found = std::ranges::find(metrics, name, &Metric::name);
  return found == metrics.end() ? NAN : found->value;
}

const SweepRecord* speed_of(const std::vector<SweepRecord>& records, const SweepCell& cell) {
  for (const SweepRecord& r : records) {
    if (r.cell.task == kSpeedTask && r.cell.model == cell.model && r.cell.policy == cell.policy &&
        r.cell.cr == cell.cr && r.cell.kv == cell.kv) {
      return &r;
    }
  }
  return nullptr;
}

// What tells series apart is in their labels, and no more.
class Labels {
 public:
  explicit Labels(const std::vector<SweepRecord>& records) {
    for (const SweepRecord& r : records) {
      models_.insert({r.cell.policy, r.cell.model});
      kvs_.insert(r.cell.kv);
    }
  }
  std::string of(const SweepCell& cell) const {
    std::string label = cell.policy;
    const auto same =
        std::ranges::count(models_, cell.policy, [](const auto& m) { return m.first; });
    if (same > 1) label += " " + model_name(cell.model);
    if (kvs_.size() > 1) label += " " + cell.kv;
    return label;
  }

 private:
  std::set<std::pair<std::string, std::string>> models_;  // policy, model
  std::set<std::string> kvs_;
};

SweepSeries& series_of(SweepTask& task, const SweepCell& cell, const Labels& labels) {
  for (SweepSeries& series : task.series) {
    if (std::tie(series.policy, series.model, series.kv) ==
        std::tie(cell.policy, cell.model, cell.kv)) {
      return series;
    }
  }
  return task.series.emplace_back(
      SweepSeries{labels.of(cell), cell.policy, cell.model, cell.kv, {}});
}

SweepTask& task_of(std::vector<SweepTask>& tasks, const SweepRecord& record) {
  const SweepCell& cell = record.cell;
  for (SweepTask& task : tasks) {
    if (task.name == cell.task && task.size == cell.size) return task;
  }
  const std::string& metric = record.score.metrics.back().name;
  return tasks.emplace_back(SweepTask{cell.task, cell.size, metric, lower_is_better(metric), {}});
}

bool beats(const SweepTask& task, const SweepPoint& a, const SweepPoint& b) {
  const double gain = (a.quality - b.quality) * (task.lower_is_better ? -1.0 : 1.0);
  return a.ratio >= b.ratio - kSame && gain >= -kSame &&
         (a.ratio > b.ratio + kSame || gain > kSame);
}

void mark_frontier(SweepTask& task) {
  std::vector<SweepPoint*> all;
  for (SweepSeries& series : task.series) {
    for (SweepPoint& point : series.points) all.push_back(&point);
  }
  for (SweepPoint* point : all) {
    point->on_frontier = std::isfinite(point->ratio) && std::isfinite(point->quality) &&
                         std::ranges::none_of(all, [&](const SweepPoint* other) {
                           return beats(task, *other, *point);
                         });
  }
}

}  // namespace

std::string model_name(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

bool lower_is_better(const std::string& metric) {
  static const std::set<std::string> kLower = {"bits_per_byte", "loss",    "perplexity", "kl",
                                               "kl_max",        "repeated"};
  return kLower.contains(metric);
}

std::vector<SweepTask> sweep_tasks(const std::vector<SweepRecord>& records) {
  const Labels labels(records);
  std::vector<SweepTask> tasks;
  for (const SweepRecord& record : records) {
    if (record.cell.task == kSpeedTask) continue;
    const Metric& quoted = record.score.metrics.back();
    const SweepRecord* speed = speed_of(records, record.cell);
    series_of(task_of(tasks, record), record.cell, labels)
        .points.push_back({&record, quoted.value, quoted.standard_error,
                           record.score.compression_ratio, metric_of(speed, kBytesPerToken),
                           metric_of(speed, kDecode)});
  }
  for (SweepTask& task : tasks) {
    for (SweepSeries& series : task.series) {
      std::ranges::stable_sort(series.points, {}, &SweepPoint::ratio);
    }
    mark_frontier(task);
  }
  return tasks;
}

}  // namespace dmc::eval

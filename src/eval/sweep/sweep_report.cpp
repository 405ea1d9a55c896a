#include "eval/sweep/sweep_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>
#include <sstream>

#include "base/human.h"
#include "base/join.h"
#include "base/table.h"
#include "eval/sweep/series.h"
#include "policy/policy.h"
#include "report/html_table.h"
#include "report/report_style.h"
#include "report/report_text.h"
#include "report/svg.h"

namespace dmc::eval {
namespace {

// Colours stay with a policy on every chart; the learned ones have the strongest.
constexpr std::array<std::string_view, report::kColors> kPolicyColors = {
    "dense", "h2o", "dmc", "tova", "dms", "window", "snapkv", "dmc-delayed"};

int color_of(const std::string& policy) {
  return static_cast<int>(std::ranges::find(kPolicyColors, policy) - kPolicyColors.begin());
}

std::string metric_name(const SweepTask& task) {
  std::string name = task.metric;
  std::ranges::replace(name, '_', ' ');
  return name;
}

std::string ratio_text(double cr) { return cr > 0.0 ? report::times(cr) : "own"; }

// What a chart has on its x axis.
struct XAxis {
  const char* title;
  report::Axis axis;
  double (*value)(const SweepPoint&);
};

double ratio_of(const SweepPoint& point) { return point.ratio; }
double bytes_of(const SweepPoint& point) { return point.bytes; }
double speed_of(const SweepPoint& point) { return point.decode; }

const XAxis kXAxes[] = {
    {"Quality against compression", {.label = "compression ratio reached", .log2 = true}, ratio_of},
    {"Quality against memory", {.label = "bytes of cache a token", .log2 = true}, bytes_of},
    {"Quality against speed", {.label = "tokens a second, decoding"}, speed_of},
};

class Page {
 public:
  explicit Page(const std::vector<SweepRecord>& records)
      : records_(records), tasks_(sweep_tasks(records)) {}

  std::string render() {
    head();
    if (records_.empty()) out_ << report::kNothingMeasured;
    verdict();
    for (const SweepTask& task : tasks_) task_section(task);
    head_maps();
    grids();
    numbers();
    out_ << "<footer>Compression ratios are those reached, over all heads of all layers. Bars are "
            "one "
            "standard error. Speeds are of this machine, each setting by itself.</footer>\n"
            "</main>\n</body>\n</html>\n";
    return out_.str();
  }

 private:
  void head() {
    out_ << "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
         << "<title>Which compression, at which ratio?</title>\n"
         << "<style>" << report::kReportStyle << "</style>\n</head>\n<body>\n<main>\n<header>\n"
         << "<h1>Which compression, at which ratio?</h1>\n<p class=\"subtitle\">"
         << "Policies for the KV cache on the same text, with the same kernels and the same "
            "budgets.</p>\n<dl class=\"facts\">\n";
    fact("models", distinct(&SweepCell::model, model_name));
    fact("policies", distinct(&SweepCell::policy));
    fact("cache", distinct(&SweepCell::kv));
    fact("measured", std::to_string(records_.size()) + " cells");
    out_ << "</dl>\n</header>\n";
  }

  void fact(const char* name, const std::string& value) {
    out_ << "<div><dt>" << name << "</dt><dd>" << report::escape_html(value) << "</dd></div>\n";
  }

  std::string distinct(std::string SweepCell::*field,
                       const std::function<std::string(const std::string&)>& name = {}) const {
    std::vector<std::string> seen;
    for (const SweepRecord& record : records_) {
      const std::string& value = record.cell.*field;
      if (std::ranges::find(seen, value) == seen.end()) seen.push_back(value);
    }
    return join(seen, ", ", [&](const std::string& value) { return name ? name(value) : value; });
  }

  void section(const std::string& title, const std::string& lead) {
    out_ << "<section>\n<h2>" << report::escape_html(title) << "</h2>\n<p class=\"lead\">"
         << report::escape_html(lead) << "</p>\n";
  }

  void figure(const std::string& title, const std::string& note, const std::string& chart,
              const char* css = "card") {
    out_ << "<figure class=\"" << css << "\">\n<h3>" << report::escape_html(title)
         << "</h3>\n<p class=\"note\">" << report::escape_html(note) << "</p>\n"
         << chart << "</figure>\n";
  }

  // --- Who is ahead, by ratio ---

  void verdict() {
    std::set<int> wanted;
    for (const SweepRecord& record : records_) {
      if (record.cell.cr > 0.0) wanted.insert(static_cast<int>(std::lround(record.cell.cr)));
    }
    if (wanted.empty()) return;
    section(
        "Ahead at each ratio",
        "The policy with the best quality among those that reached the ratio (within a tenth).");
    std::vector<std::string> headers = {"task", "uncompressed"};
    for (int cr : wanted) headers.push_back(std::to_string(cr) + "×");
    report::HtmlTable table(out_, headers);
    for (const SweepTask& task : tasks_) {
      table.begin_row();
      table.cell(report::escape_html(task.name) + "<small>" +
                 report::escape_html(metric_name(task)) + "</small>");
      table.cell(
          winner(task, [](const SweepPoint& p) { return p.record->cell.policy == "dense"; }));
      for (int cr : wanted) {
        table.cell(winner(task, [cr](const SweepPoint& p) { return p.ratio >= 0.9 * cr; }));
      }
    }
    table.end();
    out_ << "</section>\n";
  }

  std::string winner(const SweepTask& task,
                     const std::function<bool(const SweepPoint&)>& counts) const {
    const SweepPoint* best = nullptr;
    const SweepSeries* of = nullptr;
    for (const SweepSeries& series : task.series) {
      for (const SweepPoint& point : series.points) {
        if (!counts(point) || !report::known(point.quality)) continue;
        const double sign = task.lower_is_better ? -1.0 : 1.0;
        if (best != nullptr && sign * (point.quality - best->quality) <= 0.0) continue;
        best = &point;
        of = &series;
      }
    }
    if (best == nullptr) return report::kDash;
    std::string html = "<span class=\"s" +
                       std::to_string(color_of(best->record->cell.policy) % report::kColors) +
                       "\"><span class=\"chip\"></span></span>" + report::escape_html(of->policy);
    const std::string apart = of->label.substr(of->policy.size());  // from others of the policy
    if (!apart.empty()) html += "<small>" + report::escape_html(apart) + "</small>";
    return html + "<small>" + report::number(best->quality, 4) + "</small>";
  }

  // --- Charts ---

  void task_section(const SweepTask& task) {
    section(task.name, (task.size.empty() ? "" : "Measured on " + task.size + ". ") +
                           (task.lower_is_better ? "Lower" : "Higher") +
                           " is better. The pale band joins the frontier: settings that no other "
                           "beats in both ratio and quality.");
    out_ << "<div class=\"grid\">\n";
    for (const XAxis& axis : kXAxes) chart(task, axis);
    out_ << "</div>\n</section>\n";
  }

  void chart(const SweepTask& task, const XAxis& x) {
    report::LineChart chart;
    chart.description = std::string(x.title) + ", " + task.name;
    chart.x = x.axis;
    chart.y.label = metric_name(task);
    const bool is_first = x.value == ratio_of;
    chart.wide = is_first;
    if (is_first) chart.lines.push_back(frontier(task));
    for (const SweepSeries& series : task.series) {
      if (series.policy == "dense") chart.lines.push_back(baseline(task, series, x));
      chart.lines.push_back(curve(task, series, x));
    }
    const bool any = std::ranges::any_of(chart.lines, [](const report::Line& line) {
      return std::ranges::any_of(line.points,
                                 [](const report::Point& p) { return report::known(p.x); });
    });
    if (!any) return;
    figure(x.title, metric_name(task) + " of " + task.name, report::line_chart(chart),
           is_first ? "card wide" : "card");
  }

  // In the order of ratios, whatever the x axis.
  static report::Line curve(const SweepTask& task, const SweepSeries& series, const XAxis& x) {
    report::Line line;
    line.label = series.label;
    line.color = color_of(series.policy);
    line.dashed = series.kv != task.series.front().kv;
    line.markers = true;
    for (const SweepPoint& p : series.points) {
      line.points.push_back({x.value(p), p.quality, p.error});
    }
    return line;
  }

  // The uncompressed quality all across the chart.
  static report::Line baseline(const SweepTask& task, const SweepSeries& dense, const XAxis& x) {
    report::Line line;
    line.dashed = line.faint = true;
    double low = INFINITY, high = -INFINITY;
    for (const SweepSeries& series : task.series) {
      for (const SweepPoint& p : series.points) {
        low = std::min(low, x.value(p));
        high = std::max(high, x.value(p));
      }
    }
    if (low < high) {
      line.points = {{low, dense.points[0].quality}, {high, dense.points[0].quality}};
    }
    return line;
  }

  static report::Line frontier(const SweepTask& task) {
    report::Line line;
    line.band = true;
    for (const SweepSeries& series : task.series) {
      for (const SweepPoint& p : series.points) {
        if (p.on_frontier) line.points.push_back({p.ratio, p.quality});
      }
    }
    std::ranges::sort(line.points, {}, &report::Point::x);
    return line;
  }

  // --- Heat maps ---

  void head_maps() {
    std::vector<const SweepRecord*> shown;
    for (const SweepRecord& record : records_) {
      const policy::Policy* const policy = policy::find_policy(record.cell.policy);
      const bool learned = policy != nullptr && policy->needs_dmc_config;
      if (learned && !record.cr_by_head.empty()) shown.push_back(&record);
    }
    if (shown.empty()) return;
    section(
        "Where learned policies compress",
        "The ratio of each layer and KV head. Policies with a budget give every head the same.");
    out_ << "<div class=\"grid\">\n";
    for (const SweepRecord* record : shown) {
      const SweepCell& cell = record->cell;
      const std::string asked =
          cell.cr > 0.0 ? "held at " + report::times(cell.cr) : "decided by itself";
      figure(
          model_name(cell.model) + ", " + asked,
          "reached " + report::times(record->score.compression_ratio) + ", " + cell.kv + " slots",
          report::heat_map_chart({.description = "compression by layer and head",
                                  .row_label = "layer",
                                  .column_label = "KV head",
                                  .values = record->cr_by_head,
                                  .min = 1.0,
                                  .max = 24.0}));
    }
    out_ << "</div>\n</section>\n";
  }

  void grids() {
    bool open = false;
    for (const SweepRecord& record : records_) {
      for (const Grid& grid : record.score.grids) {
        if (!open) {
          section("By length and depth",
                  "Each task's quoted metric in detail, settings side by side.");
          out_ << "<div class=\"grid\">\n";
          open = true;
        }
        const SweepCell& cell = record.cell;
        figure(cell.policy + " " + ratio_text(cell.cr) + ", " + cell.task,
               model_name(cell.model) + ", " + cell.kv + " slots, reached " +
                   report::times(record.score.compression_ratio),
               report::heat_map_chart({.description = cell.task + " by " + grid.row_label,
                                       .row_label = grid.row_label,
                                       .column_label = grid.column_label,
                                       .values = grid.values,
                                       .min = 0.0,
                                       .max = 1.0,
                                       .linear = true,
                                       .rows = grid.rows,
                                       .columns = grid.columns}));
      }
    }
    if (open) out_ << "</div>\n</section>\n";
  }

  // --- Every number ---

  void numbers() {
    if (tasks_.empty()) return;
    section("Every number", "A star marks the frontier.");
    report::HtmlTable table(out_, {"task", "policy", "model", "wanted", "reached", "quality",
                                   "std. error", "bytes/token", "decode tok/s"});
    for (const SweepTask& task : tasks_) {
      for (const SweepSeries& series : task.series) {
        for (const SweepPoint& point : series.points) row(table, task, series, point);
      }
    }
    table.end();
    out_ << "</section>\n";
  }

  static void row(report::HtmlTable& table, const SweepTask& task, const SweepSeries& series,
                  const SweepPoint& p) {
    table.begin_row();
    table.cell(report::escape_html(task.name));
    table.cell(report::escape_html(series.label));
    table.cell(report::escape_html(model_name(series.model)));
    table.cell(series.policy == "dense" ? report::kDash : ratio_text(p.record->cell.cr));
    table.cell(report::number(p.ratio, 2));
    table.cell(report::number(p.quality, 4), p.on_frontier ? "best" : "");
    table.cell(report::number(p.error, 4));
    table.cell(report::number(p.bytes, 0));
    table.cell(report::rate(p.decode));
  }

  const std::vector<SweepRecord>& records_;
  std::vector<SweepTask> tasks_;
  std::ostringstream out_;
};

}  // namespace

std::string render_sweep_report(const std::vector<SweepRecord>& records) {
  return Page(records).render();
}

void print_sweep(std::ostream& out, const std::vector<SweepRecord>& records) {
  Table table({{"task", Align::kLeft},
               {"policy", Align::kLeft},
               {"CR"},
               {"metric", Align::kLeft},
               {"value"},
               {"std. error"},
               {"bytes/token"},
               {"decode tok/s"}});
  for (const SweepTask& task : sweep_tasks(records)) {
    for (const SweepSeries& series : task.series) {
      for (const SweepPoint& p : series.points) {
        table.add_row({task.name, series.label + (p.on_frontier ? " *" : ""), fixed(p.ratio, 2),
                       task.metric, report::number(p.quality, 4),
                       report::known(p.error) ? fixed(p.error, 4) : "",
                       report::known(p.bytes) ? fixed(p.bytes, 0) : "",
                       report::known(p.decode) ? report::rate(p.decode) : ""});
      }
    }
  }
  table.print(out);
  out << "*: no other setting has as high a ratio and a better value\n";
}

}  // namespace dmc::eval

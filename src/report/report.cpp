#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "base/human.h"
#include "report/html_table.h"
#include "report/report_style.h"
#include "report/report_text.h"
#include "report/svg.h"

namespace dmc::report {
namespace {

constexpr double kSmoothing = 0.08;  // weight of a new value in the smoothed loss

std::string tokens_of(double count) { return known(count) ? tokens_text(count) : number(count, 0); }

double speed_at(const Variant& variant, int batch, int64_t context) {
  for (const SpeedPoint& point : variant.decode) {
    if (point.batch == batch && point.context == context) return point.tokens_per_second;
  }
  return kNotMeasured;
}

std::vector<int> batches(const ReportData& data) {
  std::set<int> found;
  for (const Variant& variant : data.variants) {
    for (const SpeedPoint& point : variant.decode) found.insert(point.batch);
  }
  return {found.begin(), found.end()};
}

// The load at which speeds are compared: the largest batch (serving many is where the cache is what
// costs) and the longest context that every measured variant has. Context 0: there is none.
struct Load {
  int batch = 1;
  int64_t context = 0;
};

Load compared_load(const ReportData& data) {
  const std::vector<int> sizes = batches(data);
  Load load{sizes.empty() ? 1 : sizes.back(), 0};
  if (data.variants.empty()) return load;
  for (const SpeedPoint& point : data.variants.front().decode) {
    const bool everywhere =
        std::all_of(data.variants.begin(), data.variants.end(), [&](const Variant& variant) {
          return variant.decode.empty() || known(speed_at(variant, load.batch, point.context));
        });
    if (everywhere) load.context = std::max(load.context, point.context);
  }
  return load;
}

// The variant the headline is about: the one that compresses most.
const Variant& most_compressed(const ReportData& data) {
  return *std::max_element(data.variants.begin(), data.variants.end(),
                           [](const Variant& a, const Variant& b) {
                             return (known(a.cr) ? a.cr : 0.0) < (known(b.cr) ? b.cr : 0.0);
                           });
}

class Page {
 public:
  explicit Page(const ReportData& data) : data_(data), load_(compared_load(data)) {}

  std::string render() {
    head();
    headline();
    table();
    training();
    heat_maps();
    memory();
    speed();
    samples();
    foot();
    return out_.str();
  }

 private:
  void head() {
    out_ << "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
         << "<title>" << escape_html(data_.title) << "</title>\n"
         << "<style>" << kReportStyle << "</style>\n</head>\n<body>\n<main>\n<header>\n"
         << "<h1>" << escape_html(data_.title) << "</h1>\n"
         << "<p class=\"subtitle\">" << escape_html(data_.subtitle) << "</p>\n";
    if (!data_.facts.empty()) {
      out_ << "<dl class=\"facts\">\n";
      for (const auto& [name, value] : data_.facts) {
        out_ << "<div><dt>" << escape_html(name) << "</dt><dd>" << escape_html(value)
             << "</dd></div>\n";
      }
      out_ << "</dl>\n";
    }
    out_ << "</header>\n";
  }

  void section(const char* title, const char* lead) {
    out_ << "<section>\n<h2>" << title << "</h2>\n<p class=\"lead\">" << lead << "</p>\n";
  }
  void end_section() { out_ << "</section>\n"; }

  void figure(const std::string& title, const std::string& note, const std::string& chart) {
    out_ << "<figure class=\"card\">\n<h3>" << escape_html(title) << "</h3>\n<p class=\"note\">"
         << escape_html(note) << "</p>\n"
         << chart << "</figure>\n";
  }

  int color_of(const Variant& variant) const {
    return static_cast<int>(&variant - data_.variants.data()) % kColors;
  }

  // --- The row of big numbers ---

  void big_number(int color, const std::string& value, const std::string& what,
                  const std::string& note) {
    out_ << "<div class=\"card\"><div class=\"big s" << color << "\">" << escape_html(value)
         << "</div><h3>" << escape_html(what) << "</h3><p class=\"note\">" << escape_html(note)
         << "</p></div>\n";
  }

  void headline() {
    if (data_.variants.empty()) return;
    const Variant& base = data_.variants.front();
    const Variant& best = most_compressed(data_);
    out_ << "<section class=\"headline\">\n";
    if (&best != &base) {
      big_cache(base, best);
      big_quality(base, best);
      big_speed(base, best);
    }
    big_training();
    out_ << "</section>\n";
  }

  void big_cache(const Variant& base, const Variant& best) {
    if (!comparable(base.cache_bytes, best.cache_bytes)) return;
    big_number(color_of(best), times(base.cache_bytes / best.cache_bytes), "smaller cache",
               bytes(best.cache_bytes) + " instead of " + bytes(base.cache_bytes) + " at " +
                   tokens_text(static_cast<double>(data_.cache_context)) + " tokens, " + best.name);
  }

  void big_quality(const Variant& base, const Variant& best) {
    if (!comparable(best.bits_per_byte, base.bits_per_byte)) return;
    big_number(color_of(best), signed_percent(best.bits_per_byte / base.bits_per_byte),
               "bits per byte, held-out files",
               number(best.bits_per_byte, 3) + " instead of " + number(base.bits_per_byte, 3) +
                   ", " + best.name);
  }

  void big_speed(const Variant& base, const Variant& best) {
    const double fast = speed_at(best, load_.batch, load_.context);
    const double slow = speed_at(base, load_.batch, load_.context);
    if (!comparable(fast, slow) || fast <= 0.0) return;
    const std::string where = " decode at " + tokens_text(static_cast<double>(load_.context));
    big_number(color_of(best), times(std::max(fast / slow, slow / fast)),
               (fast >= slow ? "faster" : "slower") + where,
               rate(fast) + " instead of " + rate(slow) + " tokens/s, batch " +
                   std::to_string(load_.batch) + ", " + best.name);
  }

  void big_training() {
    if (data_.training.empty() || !known(data_.training.back().cr)) return;
    const TrainingPoint& last = data_.training.back();
    big_number(training_color(), times(last.cr), "compression learnt live",
               "after " + std::to_string(last.step) + " steps of retrofit; " +
                   number(last.wanted_cr, 1) + "× was the goal");
  }

  // The live retrofit has the colour of its variant in all charts.
  int training_color() const {
    for (const Variant& variant : data_.variants) {
      if (variant.name == data_.training_name) return color_of(variant);
    }
    return 1;
  }

  // --- The table ---

  void table() {
    if (data_.variants.empty()) return;
    section("Side by side",
            "Lower bits per byte and higher next-token accuracy are better. The compression ratio "
            "(CR) is tokens seen divided by slots kept.");
    HtmlTable table(out_, {"Model", "Bits per byte", "Next token right", "CR", "Slots per head",
                           "Cache at " + tokens_text(static_cast<double>(data_.cache_context)),
                           "Decode at " + tokens_text(static_cast<double>(load_.context)) +
                               ", batch " + std::to_string(load_.batch),
                           "Prefill"});
    for (const Variant& variant : data_.variants) table_row(table, variant);
    table.end();
    end_section();
  }

  static void cell(HtmlTable& table, const std::string& value, const std::string& note) {
    table.cell(escape_html(value) +
               (note.empty() ? "" : "<small>" + escape_html(note) + "</small>"));
  }

  void table_row(HtmlTable& table, const Variant& variant) {
    const Variant& base = data_.variants.front();
    const bool is_base = &variant == &base;
    const auto against_base = [&](double value, double base_value) {
      const bool show = !is_base && comparable(value, base_value);
      return show ? signed_percent(value / base_value) : std::string();
    };
    table.begin_row();
    table.cell("<span class=\"chip s" + std::to_string(color_of(variant)) + "\"></span>" +
               escape_html(variant.name));
    cell(table, number(variant.bits_per_byte, 3),
         against_base(variant.bits_per_byte, base.bits_per_byte));
    cell(table, percent(variant.accuracy), is_base ? "" : points(variant.accuracy - base.accuracy));
    cell(table, number(variant.cr, 2), "");
    cell(table, tokens_of(variant.slots),
         variant.tokens > 0 ? "of " + tokens_text(static_cast<double>(variant.tokens)) : "");
    cell(table, bytes(variant.cache_bytes), against_base(variant.cache_bytes, base.cache_bytes));
    const double decode = speed_at(variant, load_.batch, load_.context);
    const double base_decode = speed_at(base, load_.batch, load_.context);
    cell(table, per_second(decode), against_base(decode, base_decode));
    cell(table, per_second(variant.prefill_tokens_per_second),
         against_base(variant.prefill_tokens_per_second, base.prefill_tokens_per_second));
  }

  // --- Charts ---

  void training() {
    if (data_.training.empty()) return;
    section("The live retrofit",
            "A dense model learns which tokens to merge: the wanted CR rises with the steps, and "
            "the loss has to stay where it was.");
    Line raw{"", training_color()}, smooth{"loss", training_color()};
    Line now{"now", training_color()}, wanted{"wanted", 0};
    raw.faint = true;
    wanted.dashed = true;
    double average = kNotMeasured;
    for (const TrainingPoint& point : data_.training) {
      const double x = static_cast<double>(point.step);
      if (known(point.loss)) {
        average = known(average) ? average + kSmoothing * (point.loss - average) : point.loss;
        smooth.points.push_back({x, average});
      }
      raw.points.push_back({x, point.loss});
      now.points.push_back({x, point.cr});
      wanted.points.push_back({x, point.wanted_cr});
    }
    out_ << "<div class=\"grid\">\n";
    figure("Loss", "nats per token; the thin line is the single steps",
           line_chart({"Loss over training steps", {"step"}, {"nats per token"}, {raw, smooth}}));
    figure("Compression ratio", "what the model does now and what the schedule asks for",
           line_chart({"Compression ratio over training steps", {"step"}, {"CR"}, {wanted, now}}));
    out_ << "</div>\n";
    end_section();
  }

  void heat_maps() {
    double top = 1.0;
    for (const Variant& variant : data_.variants) {
      for (const auto& row : variant.cr_by_head) {
        for (const double cr : row) top = known(cr) ? std::max(top, cr) : top;
      }
    }
    if (top <= 1.0) return;  // nothing compresses, so there is nothing to see
    section("Where it compresses",
            "Every KV head decides for itself. The CR of each, on the held-out files; 1 keeps "
            "every token. The colour scale is logarithmic.");
    out_ << "<div class=\"grid\">\n";
    for (size_t i = 1; i < data_.variants.size(); ++i) {
      const Variant& variant = data_.variants[i];
      if (variant.cr_by_head.empty()) continue;
      figure(variant.name, "mean CR " + number(variant.cr, 2),
             heat_map_chart({"Compression ratio of each layer and KV head, " + variant.name,
                             "layer", "KV head", variant.cr_by_head, 1.0, top}));
    }
    out_ << "</div>\n";
    end_section();
  }

  void memory() {
    LineChart slots{
        "Slots of a KV head against tokens seen", {"tokens"}, {"slots per KV head"}, {}};
    slots.x.tokens = slots.y.tokens = true;
    slots.x.from_zero = slots.y.from_zero = true;
    std::vector<Bar> bars;
    for (const Variant& variant : data_.variants) {
      Line line{variant.name, color_of(variant)};
      for (const SlotsPoint& point : variant.slots_by_tokens) {
        line.points.push_back({static_cast<double>(point.tokens), point.slots});
      }
      slots.lines.push_back(line);
      if (known(variant.cache_bytes)) {
        bars.push_back({bar_label(variant), color_of(variant), variant.cache_bytes,
                        human_bytes(variant.cache_bytes)});
      }
    }
    section("Memory",
            "A dense cache takes a slot for every token. A compressed one merges tokens "
            "into slots it has, or drops them.");
    const std::string context = tokens_text(static_cast<double>(data_.cache_context));
    out_ << "<div class=\"grid\">\n";
    figure("Slots against tokens", "mean over layers and KV heads", line_chart(slots));
    figure("Cache of one sequence", "at " + context + " tokens, everything counted",
           bar_chart("Cache bytes at " + context + " tokens", bars));
    out_ << "</div>\n";
    end_section();
  }

  std::string bar_label(const Variant& variant) const {
    const Variant& base = data_.variants.front();
    if (&variant == &base || !comparable(base.cache_bytes, variant.cache_bytes)) {
      return variant.name;
    }
    return variant.name + ": " + times(base.cache_bytes / variant.cache_bytes) + " smaller";
  }

  void speed() {
    const std::vector<int> sizes = batches(data_);
    if (sizes.empty()) return;
    section("Decode speed", "The longer the context, the more of a step is reading the cache.");
    out_ << "<div class=\"grid\">\n";
    for (const int batch : sizes) speed_figure(batch);
    out_ << "</div>\n";
    end_section();
  }

  void speed_figure(int batch) {
    LineChart chart{"Decode speed against context", {"tokens of context"}, {"tokens/s"}, {}};
    chart.x.log2 = true;
    chart.y.from_zero = true;
    for (const Variant& variant : data_.variants) {
      Line line{variant.name, color_of(variant)};
      line.markers = true;
      for (const SpeedPoint& point : variant.decode) {
        if (point.batch != batch) continue;
        line.points.push_back({static_cast<double>(point.context), point.tokens_per_second});
      }
      chart.lines.push_back(line);
    }
    figure(batch == 1 ? "One sequence" : std::to_string(batch) + " sequences together",
           "tokens per second, of all sequences together", line_chart(chart));
  }

  // --- Samples and the rest ---

  void samples() {
    const auto has_sample = [](const Variant& v) { return !v.sample.empty() || !v.prompt.empty(); };
    if (std::none_of(data_.variants.begin(), data_.variants.end(), has_sample)) return;
    section("What they write", "The same prompt, in grey, for each.");
    out_ << "<div class=\"samples\">\n";
    for (const Variant& variant : data_.variants) {
      if (!has_sample(variant)) continue;
      out_ << "<div class=\"card\"><h3><span class=\"chip s" << color_of(variant) << "\"></span>"
           << escape_html(variant.name) << "</h3><pre><span class=\"prompt\">"
           << escape_html(variant.prompt) << "</span>" << escape_html(variant.sample)
           << "</pre></div>\n";
    }
    out_ << "</div>\n";
    end_section();
  }

  void foot() {
    std::string json = report_json(data_);
    // "</script>" inside a string would end the element; \u003c is the same character to JSON.
    for (size_t at = 0; (at = json.find('<', at)) != std::string::npos; at += 6) {
      json.replace(at, 1, "\\u003c");
    }
    out_ << "<footer><p>" << escape_html(data_.footnote)
         << " The numbers behind the charts are in this file as JSON, in the element "
            "<code>report-data</code>.</p></footer>\n</main>\n"
         << "<script type=\"application/json\" id=\"report-data\">" << json << "</script>\n"
         << "</body>\n</html>\n";
  }

  const ReportData& data_;
  const Load load_;
  std::ostringstream out_;
};

}  // namespace

std::string render_report(const ReportData& data) { return Page(data).render(); }

}  // namespace dmc::report

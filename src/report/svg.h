// Charts as inline SVG. Colours and fonts come from the page's style sheet (report_style.cpp) by
// class names and CSS variables, so that a chart follows the reader's light or dark scheme.
//
// No chart fails on odd data: points that are not finite are left out, and a chart with nothing to
// show becomes a sentence that says so.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dmc::report {

constexpr int kColors = 8;  // of series in the style sheet: classes s0 to s7
inline constexpr const char* kNothingMeasured = "<p class=\"empty\">Nothing was measured.</p>\n";

// For text between tags and in quoted attributes. What HTML cannot hold (bytes that are not UTF-8,
// control characters) becomes U+FFFD.
std::string escape_html(std::string_view text);

// About `count` round numbers (1, 2, 2.5 or 5 times a power of ten) inside [low, high].
std::vector<double> nice_ticks(double low, double high, int count);

// A number of tokens: "512", "16k" (= 16384), "1.5k".
std::string tokens_text(double tokens);

struct Point {
  double x = 0.0, y = 0.0;
  double error = 0.0;  // half of the length of a bar through the point; none if not finite
};

struct Line {
  std::string label;  // written at the line's end; empty: none
  int color = 0;      // one of kColors of the style sheet, taken modulo
  bool dashed = false;
  bool faint = false;    // in the background, such as the raw values of a smoothed line
  bool markers = false;  // a dot with a tooltip at each point
  std::vector<Point> points;
  bool band = false;  // wide and pale, to lie under the others
};

struct Axis {
  std::string label;
  bool from_zero = false;  // else the range of the data
  bool log2 = false;    // ticks at powers of two, written as numbers of tokens; from_zero is void
  bool tokens = false;  // ticks written as numbers of tokens
};

struct LineChart {
  std::string description;  // for screen readers
  Axis x, y;
  std::vector<Line> lines;
  bool wide = false;  // for the whole width of the page, text as large as in the others
};
std::string line_chart(const LineChart& chart);

struct HeatMapChart {
  std::string description;
  std::string row_label, column_label;      // "layer", "KV head"
  std::vector<std::vector<double>> values;  // [row][column]
  // Ends of the colour scale, which is logarithmic where the values are ratios: > 0.
  double min = 1.0, max = 2.0;
  bool linear = false;
  std::vector<std::string> rows = {}, columns = {};  // names; empty: numbers from 0
};
std::string heat_map_chart(const HeatMapChart& chart);

struct Bar {
  std::string label;  // above the bar
  int color = 0;
  double value = 0.0;
  std::string value_text;  // at its end
};
// Horizontal bars from zero.
std::string bar_chart(const std::string& description, const std::vector<Bar>& bars);

}  // namespace dmc::report

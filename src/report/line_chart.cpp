#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "base/human.h"
#include "base/terminal.h"
#include "report/svg.h"

namespace dmc::report {
namespace {

// All in the units of the SVG's view box; the page scales the whole.
struct Size {
  double width, height;
};
constexpr Size kNormal = {520.0, 290.0}, kWide = {1068.0, 380.0};
constexpr double kLeft = 46.0, kTop = 28.0, kBottom = 44.0;
constexpr double kMinRight = 16.0, kMaxRight = 150.0;
constexpr double kCharWidth = 6.9;  // of a label at 12 px, on the generous side
constexpr double kLabelGap = 15.0;  // between the base lines of two labels
constexpr size_t kMaxPathPoints = 400;
constexpr int kTicksX = 6, kTicksY = 5;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
};

// Finite, and such that differences of two are too.
bool in_bounds(double value) { return std::abs(value) <= 1e300; }

bool drawable(const Point& point, const LineChart& chart) {
  return in_bounds(point.x) && in_bounds(point.y) && !(chart.x.log2 && point.x <= 0.0) &&
         !(chart.y.log2 && point.y <= 0.0);
}

// Half of the length of its error bar. On a logarithmic axis there is none.
double half_bar(const Point& point, const LineChart& chart) {
  return std::isfinite(point.error) && in_bounds(point.error) && !chart.y.log2 ? point.error : 0.0;
}

// The part of the number line an axis shows: never empty, with a little air around the data.
Range axis_range(const Axis& axis, Range data) {
  if (axis.log2) return data.low < data.high ? data : Range{data.low / 2.0, data.high * 2.0};
  if (axis.from_zero) data.take(0.0);
  const double size = std::max(std::abs(data.low), std::abs(data.high));
  if (data.high - data.low <= 1e-9 * size) {  // all the same, but for rounding
    const double air = std::max(size * 0.1, 0.5);
    return {data.low - air, data.high + air};
  }
  return data;
}

// Rounds the range outwards to whole ticks, so that the highest grid line is above the data.
Range to_whole_ticks(const Range& range) {
  const std::vector<double> ticks = nice_ticks(range.low, range.high, kTicksY);
  if (ticks.size() < 2) return range;
  const double step = ticks[1] - ticks[0];
  return {std::floor(range.low / step + 1e-9) * step, std::ceil(range.high / step - 1e-9) * step};
}

std::vector<double> power_of_two_ticks(const Range& range) {
  std::vector<double> ticks;
  const int first = static_cast<int>(std::ceil(std::log2(range.low) - 1e-9));
  const int last = static_cast<int>(std::floor(std::log2(range.high) + 1e-9));
  const int stride = std::max(1, (last - first + 7) / 8);
  for (int power = first; power <= last; power += stride) ticks.push_back(std::exp2(power));
  return ticks;
}

// Numbers of tokens are read in units of 1024, so their ticks are whole there too.
std::vector<double> token_ticks(const Range& range, int count) {
  const double step = std::exp2(std::round(std::log2((range.high - range.low) / count)));
  std::vector<double> ticks;
  for (double i = std::ceil(range.low / step); i * step <= range.high * (1.0 + 1e-9); i += 1.0) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::vector<double> axis_ticks(const Axis& axis, const Range& range, int count) {
  if (axis.log2) return power_of_two_ticks(range);
  return axis.tokens ? token_ticks(range, count) : nice_ticks(range.low, range.high, count);
}

std::string tick_text(const Axis& axis, double value, const std::vector<double>& ticks) {
  if (axis.log2 || axis.tokens) return tokens_text(value);
  if (std::abs(ticks.back()) >= 10000.0) return human_count(value);
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1.0;
  int digits = 0;
  while (digits < 6 && std::abs(step * std::pow(10.0, digits) -
                                std::round(step * std::pow(10.0, digits))) > 1e-6) {
    digits += 1;
  }
  return fixed(value, digits);
}

struct EndLabel {
  std::string text;
  int color;
  double y;
};

class Drawing {
 public:
  explicit Drawing(const LineChart& chart)
      : chart_(chart), size_(chart.wide ? kWide : kNormal), right_(size_.width) {
    for (const Line& line : chart.lines) {
      for (const Point& point : line.points) {
        if (!drawable(point, chart)) continue;
        x_.take(point.x);
        y_.take(point.y - half_bar(point, chart));
        y_.take(point.y + half_bar(point, chart));
      }
    }
    if (empty()) return;
    x_ = axis_range(chart.x, x_);
    y_ = axis_range(chart.y, y_);
    if (!chart.y.log2 && !chart.y.tokens) y_ = to_whole_ticks(y_);
    right_ = size_.width - label_margin();
  }

  bool empty() const { return x_.empty() || y_.empty(); }

  std::string draw() {
    out_ << "<svg class=\"chart\" viewBox=\"0 0 " << size_.width << " " << size_.height
         << "\" role=\"img\" aria-label=\"" << escape_html(chart_.description) << "\">\n";
    y_axis();
    x_axis();
    for (const Line& line : chart_.lines) polyline(line);
    end_labels();
    out_ << "</svg>\n";
    return out_.str();
  }

 private:
  static double place(const Axis& axis, const Range& range, double value) {
    if (axis.log2) return std::log2(value / range.low) / std::log2(range.high / range.low);
    return (value - range.low) / (range.high - range.low);
  }
  double x_at(double value) const { return kLeft + place(chart_.x, x_, value) * (right_ - kLeft); }
  double y_at(double value) const {
    const double bottom = size_.height - kBottom;
    return bottom - place(chart_.y, y_, value) * (bottom - kTop);
  }

  double label_margin() const {
    size_t longest = 0;
    for (const Line& line : chart_.lines) longest = std::max(longest, display_width(line.label));
    const double wanted = longest == 0 ? 0.0 : static_cast<double>(longest) * kCharWidth + 12.0;
    return std::clamp(wanted, kMinRight, kMaxRight);
  }

  void text(double x, double y, const char* css, const std::string& words) {
    out_ << "<text x=\"" << fixed(x, 1) << "\" y=\"" << fixed(y, 1) << "\" class=\"" << css << "\">"
         << escape_html(words) << "</text>\n";
  }

  void y_axis() {
    const std::vector<double> ticks = axis_ticks(chart_.y, y_, kTicksY);
    for (const double tick : ticks) {
      const double y = y_at(tick);
      out_ << "<line class=\"grid\" x1=\"" << kLeft << "\" x2=\"" << fixed(right_, 1) << "\" y1=\""
           << fixed(y, 1) << "\" y2=\"" << fixed(y, 1) << "\"/>\n";
      text(kLeft - 8.0, y + 4.0, "tick end", tick_text(chart_.y, tick, ticks));
    }
    text(0.0, 13.0, "axis", chart_.y.label);
  }

  void x_axis() {
    const double y = size_.height - kBottom;
    out_ << "<line class=\"base\" x1=\"" << kLeft << "\" x2=\"" << fixed(right_, 1) << "\" y1=\""
         << y << "\" y2=\"" << y << "\"/>\n";
    const std::vector<double> ticks = axis_ticks(chart_.x, x_, kTicksX);
    for (const double tick : ticks) {
      text(x_at(tick), y + 17.0, "tick middle", tick_text(chart_.x, tick, ticks));
    }
    text((kLeft + right_) / 2.0, size_.height - 6.0, "axis middle", chart_.x.label);
  }

  // Long series are thinned to every n-th point; a gap is drawn where a value is not finite.
  void polyline(const Line& line) {
    const size_t stride = line.points.size() / kMaxPathPoints + 1;
    std::ostringstream path;
    bool pen_down = false;
    const Point* last = nullptr;
    for (size_t i = 0; i < line.points.size(); ++i) {
      const Point& point = line.points[i];
      if (!drawable(point, chart_)) {
        pen_down = false;
        continue;
      }
      last = &point;
      if (i % stride != 0 && i + 1 != line.points.size()) continue;
      path << (pen_down ? "L" : "M") << fixed(x_at(point.x), 1) << " " << fixed(y_at(point.y), 1);
      pen_down = true;
    }
    if (last == nullptr) return;
    const int color = color_class(line.color);
    out_ << "<path class=\"line s" << color << (line.dashed ? " dashed" : "")
         << (line.faint ? " faint" : "") << (line.band ? " band" : "") << "\" d=\"" << path.str()
         << "\"/>\n";
    if (line.markers || line.points.size() == 1) markers(line);
    if (!line.label.empty()) labels_.push_back({line.label, color, y_at(last->y)});
  }

  void markers(const Line& line) {
    for (const Point& point : line.points) {
      if (!drawable(point, chart_)) continue;
      error_bar(line, point);
      out_ << "<circle class=\"dot s" << color_class(line.color) << "\" cx=\""
           << fixed(x_at(point.x), 1) << "\" cy=\"" << fixed(y_at(point.y), 1)
           << "\" r=\"3.5\"><title>" << escape_html(line.label) << ": "
           << value_text(chart_.y, point.y) << " at " << value_text(chart_.x, point.x)
           << "</title></circle>\n";
    }
  }

  void error_bar(const Line& line, const Point& point) {
    const double half = half_bar(point, chart_);
    if (half <= 0.0) return;
    const std::string x = fixed(x_at(point.x), 1);
    out_ << "<line class=\"whisker s" << color_class(line.color) << "\" x1=\"" << x << "\" x2=\""
         << x << "\" y1=\"" << fixed(y_at(point.y - half), 1) << "\" y2=\""
         << fixed(y_at(point.y + half), 1) << "\"/>\n";
  }

  static std::string value_text(const Axis& axis, double value) {
    if (axis.log2 || axis.tokens) return tokens_text(value);
    return std::abs(value) >= 1000.0 ? human_count(value)
                                     : fixed(value, std::abs(value) < 2 ? 3 : 2);
  }

  static int color_class(int color) { return ((color % kColors) + kColors) % kColors; }

  // Labels stand at the height of their line's end, pushed apart where they would overlap.
  void end_labels() {
    std::stable_sort(labels_.begin(), labels_.end(),
                     [](const EndLabel& a, const EndLabel& b) { return a.y < b.y; });
    for (size_t i = 1; i < labels_.size(); ++i) {
      labels_[i].y = std::max(labels_[i].y, labels_[i - 1].y + kLabelGap);
    }
    double lowest = size_.height - kBottom + 2.0;
    for (size_t i = labels_.size(); i-- > 0;) {
      labels_[i].y = std::min(labels_[i].y, lowest);
      lowest = labels_[i].y - kLabelGap;
    }
    for (const EndLabel& label : labels_) {
      const std::string css = std::string("label s").append(std::to_string(label.color));
      text(right_ + 9.0, label.y + 4.0, css.c_str(), label.text);
    }
  }

  const LineChart& chart_;
  Range x_, y_;
  Size size_;
  double right_;
  std::vector<EndLabel> labels_;
  std::ostringstream out_;
};

}  // namespace

std::string line_chart(const LineChart& chart) {
  Drawing drawing(chart);
  return drawing.empty() ? kNothingMeasured : drawing.draw();
}

}  // namespace dmc::report

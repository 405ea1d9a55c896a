// Charts made of rectangles: heat maps and bars.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/human.h"
#include "base/terminal.h"
#include "report/svg.h"

namespace dmc::report {
namespace {

constexpr double kWidth = 520.0;

struct Box {
  double x, y, width, height;
};

void open_svg(std::ostream& out, double height, const std::string& description) {
  out << "<svg class=\"chart\" viewBox=\"0 0 " << kWidth << " " << fixed(height, 0)
      << "\" role=\"img\" aria-label=\"" << escape_html(description) << "\">\n";
}

void text(std::ostream& out, double x, double y, const char* css, const std::string& words) {
  out << "<text x=\"" << fixed(x, 1) << "\" y=\"" << fixed(y, 1) << "\" class=\"" << css << "\">"
      << escape_html(words) << "</text>\n";
}

// `style` and `title` may be empty.
void rectangle(std::ostream& out, const Box& box, const char* css, const std::string& style,
               const std::string& title) {
  out << "<rect class=\"" << css << "\" x=\"" << fixed(box.x, 1) << "\" y=\"" << fixed(box.y, 1)
      << "\" width=\"" << fixed(box.width, 1) << "\" height=\"" << fixed(box.height, 1) << "\"";
  if (!style.empty()) out << " style=\"" << style << "\"";
  if (title.empty()) {
    out << "/>\n";
  } else {
    out << "><title>" << escape_html(title) << "</title></rect>\n";
  }
}

// The ramp runs through the style sheet's three colours, evenly light in either scheme.
std::string heat_style(double share) {
  const bool upper = share >= 0.5;
  const double within = upper ? 2.0 * share - 1.0 : 2.0 * share;
  return std::string("fill:color-mix(in oklab,var(--heat-")
      .append(upper ? "high" : "mid")
      .append(") ")
      .append(fixed(100.0 * within, 0))
      .append("%,var(--heat-")
      .append(upper ? "mid" : "low")
      .append("))");
}

class HeatMapDrawing {
 public:
  explicit HeatMapDrawing(const HeatMapChart& chart) : chart_(chart) {
    for (const auto& row : chart.values) columns_ = std::max(columns_, row.size());
    const size_t rows = chart.values.size();
    if (empty()) return;
    cell_width_ = std::min(kMaxCellWidth, (kWidth - kLeft) / static_cast<double>(columns_));
    cell_height_ = rows > 16 ? 20.0 : 28.0;
    bottom_ = kTop + cell_height_ * static_cast<double>(rows);
  }

  bool empty() const { return columns_ == 0; }

  std::string draw() {
    open_svg(out_, bottom_ + kLegendHeight, chart_.description);
    column_numbers();
    for (size_t r = 0; r < chart_.values.size(); ++r) draw_row(r);
    legend();
    out_ << "</svg>\n";
    return out_.str();
  }

 private:
  static constexpr double kLeft = 62.0, kTop = 40.0, kLegendHeight = 52.0;
  static constexpr double kMaxCellWidth = 114.0, kGap = 2.0;
  static constexpr double kLegendWidth = 200.0;
  static constexpr int kLegendSteps = 40;
  static constexpr double kDarkFrom = 0.62;  // share from which the other text colour reads better

  double share(double value) const {
    if (chart_.linear)
      return std::clamp((value - chart_.min) / (chart_.max - chart_.min), 0.0, 1.0);
    if (!(chart_.min > 0.0 && chart_.min < chart_.max && value > 0.0)) return 0.0;
    return std::clamp(std::log(value / chart_.min) / std::log(chart_.max / chart_.min), 0.0, 1.0);
  }
  static std::string name(const std::vector<std::string>& names, size_t index) {
    return index < names.size() ? names[index] : std::to_string(index);
  }
  double column_middle(size_t column) const {
    return kLeft + (static_cast<double>(column) + 0.5) * cell_width_;
  }

  void column_numbers() {
    const std::string rows = chart_.rows.empty() ? "" : chart_.row_label + " \\ ";
    text(out_, chart_.rows.empty() ? kLeft : 0.0, 13.0, "axis", rows + chart_.column_label);
    const size_t stride = cell_width_ < 18.0 ? 4 : 1;
    for (size_t c = 0; c < columns_; c += stride) {
      text(out_, column_middle(c), kTop - 8.0, "tick middle", name(chart_.columns, c));
    }
  }

  void draw_row(size_t r) {
    const double y = kTop + static_cast<double>(r) * cell_height_;
    const double base_line = y + cell_height_ / 2.0 + 4.0;
    if (r == 0 && chart_.rows.empty()) text(out_, 0.0, base_line, "axis", chart_.row_label);
    text(out_, kLeft - 8.0, base_line, "tick end", name(chart_.rows, r));
    for (size_t c = 0; c < chart_.values[r].size(); ++c) draw_cell(r, c, y, base_line);
  }

  void draw_cell(size_t r, size_t c, double y, double base_line) {
    const double value = chart_.values[r][c];
    const bool known = std::isfinite(value);
    const Box box{kLeft + static_cast<double>(c) * cell_width_, y, cell_width_ - kGap,
                  cell_height_ - kGap};
    std::ostringstream title;
    title << chart_.row_label << " " << name(chart_.rows, r) << ", " << chart_.column_label << " "
          << name(chart_.columns, c) << ": " << (known ? fixed(value, 2) : "not measured");
    rectangle(out_, box, known ? "cell" : "cell unknown", known ? heat_style(share(value)) : "",
              title.str());
    if (!known || cell_width_ < 30.0) return;
    const char* css = share(value) >= kDarkFrom ? "value high" : "value low";
    text(out_, column_middle(c) - kGap / 2.0, base_line, css, fixed(value, value < 9.995 ? 2 : 1));
  }

  void legend() {
    const double y = bottom_ + 18.0;
    const double step = kLegendWidth / kLegendSteps;
    for (int i = 0; i < kLegendSteps; ++i) {
      // The overlap hides the seams between neighbours.
      const Box box{kLeft + i * step, y, step + (i + 1 < kLegendSteps ? 0.5 : 0.0), 9.0};
      rectangle(out_, box, "ramp", heat_style((i + 0.5) / kLegendSteps), "");
    }
    text(out_, kLeft, y + 25.0, "tick", fixed(chart_.min, 1));
    const double middle =
        chart_.linear ? (chart_.min + chart_.max) / 2.0 : std::sqrt(chart_.min * chart_.max);
    text(out_, kLeft + kLegendWidth / 2.0, y + 25.0, "tick middle", fixed(middle, 1));
    text(out_, kLeft + kLegendWidth, y + 25.0, "tick end", fixed(chart_.max, 1));
  }

  const HeatMapChart& chart_;
  size_t columns_ = 0;
  double cell_width_ = 0.0, cell_height_ = 0.0, bottom_ = 0.0;
  std::ostringstream out_;
};

}  // namespace

std::string heat_map_chart(const HeatMapChart& chart) {
  HeatMapDrawing drawing(chart);
  return drawing.empty() ? kNothingMeasured : drawing.draw();
}

std::string bar_chart(const std::string& description, const std::vector<Bar>& bars) {
  constexpr double kRow = 76.0, kThickness = 34.0, kTextRoom = 90.0;
  double longest = 0.0;
  for (const Bar& bar : bars) {
    if (std::isfinite(bar.value)) longest = std::max(longest, bar.value);
  }
  if (!(longest > 0.0)) return kNothingMeasured;
  std::ostringstream out;
  open_svg(out, kRow * static_cast<double>(bars.size()), description);
  double y = 0.0;
  for (const Bar& bar : bars) {
    const double share = std::isfinite(bar.value) ? std::max(bar.value, 0.0) / longest : 0.0;
    const double length = std::max(share * (kWidth - kTextRoom), 2.0);
    const int color = ((bar.color % kColors) + kColors) % kColors;
    text(out, 0.0, y + 16.0, "bar-label", bar.label);
    rectangle(out, {0.0, y + 24.0, length, kThickness},
              std::string("bar s").append(std::to_string(color)).c_str(), "", "");
    text(out, length + 10.0, y + 46.0, "bar-value", bar.value_text);
    y += kRow;
  }
  out << "</svg>\n";
  return out.str();
}

}  // namespace dmc::report

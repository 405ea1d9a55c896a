#include "base/table.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/human.h"
#include "base/terminal.h"

namespace dmc {
namespace {

std::string padded(const std::string& text, size_t width, Align align) {
  const size_t columns = display_width(text);
  const std::string space(width > columns ? width - columns : 0, ' ');
  return align == Align::kLeft ? text + space : space + text;
}

// Dark blue to pale yellow in equal steps of lightness, so that it also reads without hue.
constexpr std::array<int, 8> kRamp = {17, 18, 24, 30, 35, 77, 149, 228};
constexpr size_t kFirstLight = 4;  // from here on black text is the readable one
constexpr int kBlack = 16, kWhite = 231;
constexpr size_t kCellWidth = 6;

std::string heat_cell(double value, const HeatMap& map, bool color) {
  if (!std::isfinite(value)) return padded("- ", kCellWidth, Align::kRight);
  const double range = map.max - map.min;
  const double share = range > 0.0 ? std::clamp((value - map.min) / range, 0.0, 1.0) : 0.0;
  const auto step = static_cast<size_t>(std::lround(share * (kRamp.size() - 1)));
  const std::string text = padded(fixed(value, 2) + " ", kCellWidth, Align::kRight);
  return on_color(text, step >= kFirstLight ? kBlack : kWhite, kRamp[step], color);
}

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  DMC_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::print(std::ostream& out) const {
  const bool color = color_enabled(out);
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(display_width(columns_[c].header));
    for (const auto& row : rows_) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  const auto line = [&](auto cell_text, bool is_header) {
    std::string text;
    for (size_t c = 0; c < columns_.size(); ++c) {
      text += (c > 0 ? "  " : "") + padded(cell_text(c), widths[c], columns_[c].align);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << bold(text, color && is_header) << "\n";
  };
  line([&](size_t c) { return columns_[c].header; }, true);
  for (const auto& row : rows_) {
    line([&](size_t c) { return row[c]; }, false);
  }
}

void print_heat_map(std::ostream& out, const HeatMap& map, bool color) {
  size_t columns = 0;
  for (const auto& row : map.values) columns = std::max(columns, row.size());
  const std::string last_row = std::to_string(map.values.empty() ? 0 : map.values.size() - 1);
  const size_t label_width = map.row_label.size() + 1 + last_row.size();

  out << bold(map.title, color) << "\n";
  out << padded(map.column_label, label_width, Align::kRight) << " ";
  for (size_t c = 0; c < columns; ++c) {
    out << padded(std::to_string(c) + " ", kCellWidth, Align::kRight);
  }
  out << "\n";
  for (size_t r = 0; r < map.values.size(); ++r) {
    const std::string number = padded(std::to_string(r), last_row.size(), Align::kRight);
    out << map.row_label << " " << number << " ";
    for (const double value : map.values[r]) out << heat_cell(value, map, color);
    out << "\n";
  }
}

}  // namespace dmc

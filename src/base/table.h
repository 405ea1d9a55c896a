// Tables and heat maps for a terminal.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace dmc {

enum class Align { kLeft, kRight };

// Columns as wide as their widest cell, two spaces between them.
class Table {
 public:
  struct Column {
    std::string header;
    Align align = Align::kRight;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add_row(std::vector<std::string> cells);  // as many as there are columns
  void print(std::ostream& out) const;           // the header in bold where colour is on

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

struct HeatMap {
  std::string title;
  std::string row_label, column_label;      // "layer", "head"
  std::vector<std::vector<double>> values;  // [row][column]; rows may differ in length
  double min = 0.0, max = 1.0;              // ends of the colour scale; values beyond are clamped
};

// Values with two decimals; not finite: "-". `color` puts each on a cell of its colour.
void print_heat_map(std::ostream& out, const HeatMap& map, bool color);

}  // namespace dmc

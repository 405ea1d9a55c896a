// A table that on a narrow screen, where its columns have no room, turns into a list: each cell
// then shows its column's header beside it (report_style.cpp).
#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::report {

class HtmlTable {
 public:
  // Headers are plain text. The table stands in a card of its own.
  HtmlTable(std::ostream& out, std::vector<std::string> headers);
  // Ends the table; every row has as many cells as there are headers.
  void end();

  void begin_row();
  // `html` is written as it is; `css_class` may be empty.
  void cell(std::string_view html, std::string_view css_class = {});

 private:
  void end_row();

  std::ostream& out_;
  std::vector<std::string> headers_;
  size_t next_ = 0;  // cell of the row
  bool in_row_ = false;
};

}  // namespace dmc::report

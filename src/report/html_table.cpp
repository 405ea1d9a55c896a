#include "report/html_table.h"

#include "base/error.h"
#include "report/svg.h"

namespace dmc::report {

HtmlTable::HtmlTable(std::ostream& out, std::vector<std::string> headers)
    : out_(out), headers_(std::move(headers)) {
  out_ << "<div class=\"card scroll\"><table>\n<thead><tr>";
  for (const std::string& header : headers_) out_ << "<th>" << escape_html(header) << "</th>";
  out_ << "</tr></thead>\n<tbody>\n";
}

void HtmlTable::end() {
  end_row();
  out_ << "</tbody></table></div>\n";
}

void HtmlTable::begin_row() {
  end_row();
  out_ << "<tr>";
  in_row_ = true;
}

void HtmlTable::cell(std::string_view html, std::string_view css_class) {
  DMC_CHECK(in_row_ && next_ < headers_.size());
  out_ << "<td data-label=\"" << escape_html(headers_[next_++]) << "\"";
  if (!css_class.empty()) out_ << " class=\"" << css_class << "\"";
  out_ << "><span>" << html << "</span></td>";
}

void HtmlTable::end_row() {
  if (!in_row_) return;
  DMC_CHECK(next_ == headers_.size());
  out_ << "</tr>\n";
  in_row_ = false;
  next_ = 0;
}

}  // namespace dmc::report

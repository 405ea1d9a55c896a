#include "report/svg.h"

#include <algorithm>
#include <cmath>

#include "base/human.h"
#include "base/utf8.h"

namespace dmc::report {

std::string escape_html(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : utf8_repaired(text)) {
    const auto byte = static_cast<unsigned char>(c);
    const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else if (c == '\'') {
      escaped += "&#39;";
    } else if (control) {
      escaped += "\xef\xbf\xbd";  // U+FFFD: HTML has no way to write a control character
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  if (!std::isfinite(high - low) || !(low < high) || count < 1) return {};
  // Closer than that, a double cannot count the steps.
  if (high - low < 1e-12 * std::max(std::abs(low), std::abs(high))) return {};
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10.0 * power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * 0.999) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; i += 1.0) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::string tokens_text(double tokens) {
  if (tokens < 1024.0) return human_count(tokens);
  const double kilo = tokens / 1024.0;
  const bool whole = std::abs(kilo - std::round(kilo)) < 0.05 || kilo >= 100.0;
  return fixed(kilo, whole ? 0 : 1).append("k");
}

}  // namespace dmc::report

#include "report/report_text.h"

#include <cmath>

#include "base/human.h"

namespace dmc::report {
namespace {

// "+1.2", "−0.4", "±0.0": the sign of what is shown, not of what was rounded away.
std::string signed_number(double value) {
  const std::string size = fixed(std::abs(value), 1);
  const char* sign = size == "0.0" ? "±" : value < 0.0 ? "−" : "+";
  return sign + size;
}

}  // namespace

bool known(double value) { return std::isfinite(value); }
bool comparable(double value, double base) { return known(value) && known(base) && base > 0.0; }

std::string number(double value, int digits) { return known(value) ? fixed(value, digits) : kDash; }
std::string bytes(double value) { return known(value) ? human_bytes(value) : kDash; }
std::string rate(double value) { return known(value) ? human_count(value) : kDash; }
std::string percent(double share) { return known(share) ? fixed(100.0 * share, 1) + "%" : kDash; }
std::string per_second(double value) { return known(value) ? rate(value) + " tok/s" : kDash; }

std::string times(double ratio) { return fixed(ratio, ratio < 9.95 ? 1 : 0) + "×"; }
std::string signed_percent(double ratio) { return signed_number(100.0 * (ratio - 1.0)) + "%"; }
std::string points(double difference) {
  return known(difference) ? signed_number(100.0 * difference) + " points" : "";
}

}  // namespace dmc::report

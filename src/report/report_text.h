// Numbers of the report as text. A number that is not finite was not measured: a dash.
#pragma once

#include <string>

namespace dmc::report {

inline constexpr const char* kDash = "–";  // what was not measured

bool known(double value);                    // finite
bool comparable(double value, double base);  // both known, and `base` can divide

std::string number(double value, int digits);
std::string bytes(double value);
std::string percent(double share);     // 0.612 is "61.2%"
std::string rate(double value);        // "5.1k"
std::string per_second(double value);  // "5.1k tok/s"

std::string times(double ratio);           // "3.9×"
std::string signed_percent(double ratio);  // 1.012 is "+1.2%"
std::string points(double difference);     // of shares: 0.004 is "+0.4 points"; not known: empty

}  // namespace dmc::report

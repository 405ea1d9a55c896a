#include "base/human.h"

#include <cmath>
#include <cstdio>
#include <span>

namespace dmc {
namespace {

// Scales `value` down by `base` until it is below it, or the last unit is reached.
std::string with_unit(double value, double base, std::span<const char* const> units) {
  size_t unit = 0;
  // 999.5 would be printed as 1000 of the smaller unit.
  while (unit + 1 < units.size() && std::abs(value) >= base - 0.5) {
    value /= base;
    unit += 1;
  }
  const bool whole = unit == 0 || std::abs(value) >= 9.95;
  return fixed(value, whole ? 0 : 1) + units[unit];
}

// Of a `value` from 0 to 99.
std::string two_digits(int64_t value) {
  const std::string text = std::to_string(value);
  return std::string(2 - text.size(), '0') + text;
}

}  // namespace

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[352];  // the longest double has 309 digits before the point
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  const std::string text = buffer;
  const bool is_zero = text.find_first_of("123456789") == std::string::npos;
  return is_zero && text[0] == '-' ? text.substr(1) : text;
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  return with_unit(bytes, 1024.0, kUnits);
}

std::string human_count(double count) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  return with_unit(count, 1000.0, kUnits);
}

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0.0 || seconds > 1e9) return "?";
  if (seconds < 9.95) return fixed(seconds, 1) + "s";
  const int64_t whole = std::llround(seconds);
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) return std::to_string(whole / 60) + "m " + two_digits(whole % 60) + "s";
  return std::to_string(whole / 3600) + "h " + two_digits(whole % 3600 / 60) + "m";
}

}  // namespace dmc

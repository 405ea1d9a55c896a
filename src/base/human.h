// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace dmc {

std::string fixed(double value, int digits);  // "1.80"; "nan" and "inf" as such; never "-0.00"
std::string human_bytes(double bytes);        // "512 B", "1.5 KiB", "23 MiB"
std::string human_count(double count);        // "950", "5.1k", "12M": three digits at most
std::string human_duration(double seconds);   // "0.4s", "12s", "1m 20s", "2h 05m"; "?" if not known

}  // namespace dmc

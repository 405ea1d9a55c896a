// What this machine can do, measured beside what is compared with it.
#pragma once

namespace dmc::bench {

// Bytes per second that all threads together read from memory beyond every cache.
double read_bandwidth();
// f32 multiply-adds, two operations each, per second that all threads together execute.
double fma_peak();

}  // namespace dmc::bench

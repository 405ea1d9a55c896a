// What this machine can do, measured beside what is compared with it.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>

namespace dmc::bench {

// Bytes per second that all threads together read from memory beyond every cache.
double read_bandwidth();
// f32 multiply-adds, two operations each, per second that all threads together execute.
double fma_peak();

// Runs `fn`, which does `work` bytes or operations, in every iteration of a benchmark with manual
// time, each between two probes: a machine that others use changes its speed from one moment to the
// next. The counter `name` is the median share of the probes' rate.
void run_beside(benchmark::State& state, double (*probe)(), double work, const char* name,
                const std::function<void()>& fn);

}  // namespace dmc::bench

// Benchmarks beside the machine's own limit.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>

namespace dmc::bench {

// Runs `fn`, which does `work` bytes or operations, in every iteration of a benchmark with manual
// time, each between two probes: a machine that others use changes its speed from one moment to the
// next. The counter `name` is the median share of the probes' rate.
void run_beside(benchmark::State& state, double (*probe)(), double work, const char* name,
                const std::function<void()>& fn);

}  // namespace dmc::bench

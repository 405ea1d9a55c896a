// dmc_micro: kernels against this machine's limits. --benchmark_filter=REGEX chooses some,
// --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true gives medians.
#include <benchmark/benchmark.h>

BENCHMARK_MAIN();

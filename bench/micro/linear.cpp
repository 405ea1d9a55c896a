// Products with weights: one row against the read bandwidth, many rows against the peak rate of
// multiply-adds, each probed right before and after.
#include "kernels/linear.h"

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "beside.h"
#include "machine.h"

namespace dmc::bench {
namespace {

// The feed-forward matrix of TinyLlama-1.1B's shape; several copies, so that one row finds none of
// them in a cache.
constexpr int64_t kOutputs = 5632, kInputs = 2048;
constexpr int64_t kBytes = int64_t{256} << 20;

struct Case {
  const char* name;
  DType type;
  int64_t rows;
};

constexpr Case kCases[] = {
    {"f32/1", DType::kF32, 1},       {"f16/1", DType::kF16, 1},     {"bf16/1", DType::kBF16, 1},
    {"int8/1", DType::kI8, 1},       {"int4/1", DType::kI4, 1},     {"bf16/4", DType::kBF16, 4},
    {"int4/4", DType::kI4, 4},       {"bf16/8", DType::kBF16, 8},   {"int4/8", DType::kI4, 8},
    {"bf16/16", DType::kBF16, 16},   {"bf16/32", DType::kBF16, 32}, {"int4/32", DType::kI4, 32},
    {"bf16/64", DType::kBF16, 64},   {"f32/512", DType::kF32, 512}, {"f16/512", DType::kF16, 512},
    {"bf16/512", DType::kBF16, 512}, {"int8/512", DType::kI8, 512}, {"int4/512", DType::kI4, 512},
};

void linear_rows(benchmark::State& state, const Case& c) {
  Rng rng(1);
  std::vector<float> row(kInputs), x(static_cast<size_t>(c.rows * kInputs)),
      y(static_cast<size_t>(c.rows * kOutputs));
  for (float& value : row) value = static_cast<float>(rng.uniform() - 0.5);
  for (float& value : x) value = static_cast<float>(rng.uniform() - 0.5);
  std::vector<kernels::PackedWeights> copies;
  do {
    copies.emplace_back(kOutputs, kInputs, c.type);
    for (int64_t output = 0; output < kOutputs; ++output) {
      copies.back().set_rows(output, 1, row.data());
    }
  } while (static_cast<int64_t>(copies.size()) * copies.back().bytes() < kBytes);

  const bool streaming = c.rows < 16;
  const auto operations = static_cast<double>(2 * c.rows * kOutputs * kInputs);
  const auto bytes = static_cast<double>(copies[0].bytes());
  size_t next = 0;
  run_beside(state, streaming ? read_bandwidth : fma_peak, streaming ? bytes : operations,
             streaming ? "of_R" : "of_peak", [&] {
               kernels::linear(copies[next++ % copies.size()], nullptr, x.data(), c.rows, y.data());
             });
  const auto rounds = static_cast<double>(state.iterations());
  using Counter = benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(operations * 1e-9 * rounds, Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes * 1e-9 * rounds, Counter::kIsRate);
}

const bool registered = [] {
  for (const Case& c : kCases) {
    benchmark::RegisterBenchmark(("linear/" + std::string(c.name)).c_str(),
                                 [&c](benchmark::State& state) { linear_rows(state, c); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace dmc::bench

#include "beside.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "base/stopwatch.h"

namespace dmc::bench {

void run_beside(benchmark::State& state, double (*probe)(), double work, const char* name,
                const std::function<void()>& fn) {
  fn();  // what is done once, and caches as the next rounds find them
  std::vector<double> shares;
  double before = probe();
  for (auto _ : state) {
    const Stopwatch watch;
    fn();
    const double seconds = watch.seconds();
    state.SetIterationTime(seconds);
    const double after = probe();
    shares.push_back(work / seconds / ((before + after) / 2.0));
    before = after;
  }
  const auto middle = shares.begin() + std::ssize(shares) / 2;
  std::ranges::nth_element(shares, middle);
  state.counters[name] = *middle;
}

}  // namespace dmc::bench

#include "runtime/runner.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "base/error.h"

namespace dmc::runtime {

double Runner::compression_ratio(engine::SequenceId sequence) const {
  const std::vector<int64_t> kept = slots(sequence);
  const int64_t sum = std::accumulate(kept.begin(), kept.end(), int64_t{0});
  if (sum == 0) return 1.0;
  return static_cast<double>(length(sequence)) * static_cast<double>(kept.size()) /
         static_cast<double>(sum);
}

void Runner::require_room(int64_t tokens) const {
  if (tokens <= max_positions()) return;
  throw invalid_argument("the text has at least " + std::to_string(tokens) +
                         " tokens, the model's context is " + std::to_string(max_positions()));
}

std::vector<std::span<const int32_t>> chunks_of(std::span<const int32_t> tokens, int64_t chunk) {
  std::vector<std::span<const int32_t>> result;
  for (; !tokens.empty(); tokens = tokens.subspan(result.back().size())) {
    result.push_back(tokens.first(std::min(tokens.size(), static_cast<size_t>(chunk))));
  }
  return result;
}

}  // namespace dmc::runtime

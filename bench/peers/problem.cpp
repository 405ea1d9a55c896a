#include "problem.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace dmc::peers {
namespace {

// Rows are cut from one short table: drawing every number anew would take longer than measuring.
const std::vector<float>& table() {
  static const std::vector<float> numbers = [] {
    std::vector<float> drawn(size_t{1} << 16);
    Rng rng(/*seed=*/1);
    for (float& number : drawn) number = static_cast<float>(2.0 * rng.uniform() - 1.0);
    return drawn;
  }();
  return numbers;
}

}  // namespace

float Problem::scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

void fill_row(const Problem& problem, Row row, int layer, int head, int64_t slot, float* out) {
  const auto stream = static_cast<uint64_t>(layer * problem.query_heads + head);
  const uint64_t bits =
      random_bits(static_cast<uint64_t>(row), stream, static_cast<uint64_t>(slot));
  const size_t first = bits % (table().size() - static_cast<size_t>(problem.head_dim));
  std::copy_n(table().data() + first, problem.head_dim, out);
}

}  // namespace dmc::peers

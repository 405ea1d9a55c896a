#include "kernels/ref/linear_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/backend.h"
#include "kernels/rounding.h"

namespace dmc::kernels::ref {

void linear_block(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                  const float* bias, float* y) {
  const int64_t inputs = weights.inputs(), first = block * PackedWeights::kBlock;
  const int64_t last = std::min(first + PackedWeights::kBlock, weights.outputs());
  std::vector<float> weight(static_cast<size_t>(inputs));
  for (int64_t output = first; output < last; ++output) {
    weights.get_row(output, weight.data());
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t begin = r / kPanelRows * kPanelRows, width = std::min(kPanelRows, rows - begin);
      const float* const row = x + begin * inputs + (r - begin);
      double sum = bias != nullptr ? bias[output] : 0.0;
      for (int64_t i = 0; i < inputs; ++i) {
        sum += static_cast<double>(row[i * width]) * weight[static_cast<size_t>(i)];
      }
      y[r * weights.outputs() + output] = static_cast<float>(sum);
    }
  }
}

void round_activations(const float* x, int64_t inputs, ActivationGroup* to) {
  for (int64_t begin = 0; begin < inputs; begin += kGroup, ++to) {
    const int64_t count = std::min(kGroup, inputs - begin);
    *to = {};
    round_row(x + begin, count, DType::kI8, reinterpret_cast<std::byte*>(to->numbers), &to->scale);
    int totals[2] = {};
    for (int64_t i = 0; i < kGroup; ++i) totals[i / (kGroup / 2)] += to->numbers[i];
    for (int half = 0; half < 2; ++half) to->offsets[half] = -128 * totals[half];
    to->sum = to->scale * static_cast<float>(totals[0] + totals[1]);
  }
}

namespace {

// Of one output and one row, the numbers taken as what they stand for.
template <class Group>
double group_product(const Group& weights, int64_t output, const ActivationGroup& x) {
  double sum = 0.0;
  for (int64_t i = 0; i < kGroup; ++i) {
    sum += static_cast<double>(x.scale) * x.numbers[i] * weights.weight(output, i);
  }
  return sum;
}

}  // namespace

void group_block(const PackedWeights& weights, int64_t block, const ActivationGroup* x,
                 int64_t rows, const float* bias, float* y) {
  const int64_t groups = groups_of(weights.inputs()), first = block * PackedWeights::kBlock;
  const int64_t last = std::min(first + PackedWeights::kBlock, weights.outputs());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t output = first; output < last; ++output) {
      double sum = bias != nullptr ? bias[output] : 0.0;
      with_group(weights.type(), [&](auto kind) {
        const auto* const of_block = weights.groups<decltype(kind)>(block);
        for (int64_t g = 0; g < groups; ++g) {
          sum += group_product(of_block[g], output - first, x[r * groups + g]);
        }
      });
      y[r * weights.outputs() + output] = static_cast<float>(sum);
    }
  }
}

void silu_product(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
  }
}

}  // namespace dmc::kernels::ref

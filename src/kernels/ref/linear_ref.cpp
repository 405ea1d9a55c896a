#include "kernels/ref/linear_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/backend.h"

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

void silu_product(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
  }
}

}  // namespace dmc::kernels::ref

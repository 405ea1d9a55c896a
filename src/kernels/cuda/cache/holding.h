// Holding a compression ratio on the device (policy/holding.h): the bias of a sequence's next
// decisions, from what its streams hold before they take those tokens in.
#pragma once

#include <cstdint>

#include "kernels/cuda/cache/device_cache.h"
#include "policy/holding.h"

namespace dmc::kernels::cuda {

struct HoldingSpec {
  int layers;
  double cr;
  float bias;  // added to that of the ratio
};

// Of the sequence in row `row` of the batch, which has seen `tokens` tokens. All lanes get it.
template <class Team>
DMC_DEVICE float held_bias(const HoldingSpec& spec, const Streams& streams, const Batch& batch,
                           int row, int32_t tokens) {
  const int count = spec.layers * batch.kv_heads;
  int64_t slots = 0;
  for (int n = Team::lane(); n < count; n += Team::size()) {
    const int item = row * batch.kv_heads + n % batch.kv_heads;
    const int64_t stream = batch.stream(n / batch.kv_heads, item);
    // Slots that are marked count as gone: their delay must not make the control swing.
    slots += streams.closed[stream] - streams.marked(stream);
    slots += streams.open_count[stream] > 0 ? 1 : 0;
  }
  const double mean = static_cast<double>(Team::sum(slots)) / count;
  return spec.bias + static_cast<float>(policy::holding_bias(tokens, mean, spec.cr));
}

}  // namespace dmc::kernels::cuda

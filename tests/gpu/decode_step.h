// A decode step in host memory, for comparison with a GPU's: streams of all lengths in the middle
// of decoding, and what the step must give. Compiled by g++ alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/cache/host_cache.h"
#include "kernels/cuda/cache/take_token.h"

namespace dmc::kernels::cuda {

constexpr int kLayers = 2;

struct Case {
  DType type;
  int head_dim, page_slots, group, kv_heads, batch, longest;  // longest: slots of a stream
  int window = 12;

  std::string text() const;
};

std::vector<float> random_numbers(size_t count, Rng& rng);  // in [-1, 1)

struct Step {
  Case c;
  int cache_rows;
  std::vector<int32_t> rows, positions;  // one row of a larger batch is not in use
  HostCache cache;
  std::vector<float> q, k, v, importance, cos, sin;
  std::vector<uint8_t> merge;

  Step(const Case& of, Rng& rng);

  Batch batch(const int32_t* batch_rows) const {
    return {batch_rows, c.batch, c.kv_heads, cache_rows};
  }
  // The whole step of a layer: the streams take their tokens, and out is returned,
  // [batch][kv_heads] [group][head_dim]; NaN in rows not in use.
  std::vector<float> run_on_host(int layer, float scale);

 private:
  int64_t streams() const { return int64_t{kLayers} * cache_rows * c.kv_heads; }
  void fill(int64_t stream, const PoolView& view, Rng& rng);
  void take(int64_t stream, const TokenPair& token);
  std::vector<std::byte*> page_addresses();
};

}  // namespace dmc::kernels::cuda

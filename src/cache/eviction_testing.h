// What the tests of policies that drop slots share.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "cache/kv_cache.h"

namespace dmc::cache::eviction_testing {

inline constexpr int kHeads = 2, kGroup = 2, kHeadDim = 16;
inline constexpr int64_t kTokens = 120;

// Random queries, keys and values of one layer, and what attention gives.
struct Text {
  std::vector<float> q, k, v;
  std::vector<policy::Decision> decisions = std::vector<policy::Decision>(kTokens * kHeads);
  std::vector<float> importance = std::vector<float>(kTokens * kHeads, 1.0f);
  std::vector<float> out = std::vector<float>(kTokens * kHeads * kGroup * kHeadDim);

  explicit Text(uint64_t seed) {
    Rng rng(seed);
    const auto fill = [&](std::vector<float>& x, int64_t heads) {
      x.resize(static_cast<size_t>(kTokens * heads * kHeadDim));
      for (float& value : x) value = static_cast<float>(4.0 * rng.uniform() - 2.0);
    };
    fill(q, kHeads * kGroup);
    fill(k, kHeads);
    fill(v, kHeads);
  }
  // The score of a query, the g-th of a head's group at token t, and the key at `position`.
  double score(int64_t t, int head, int g, int64_t position) const {
    const float* const query =
        &q[static_cast<size_t>(((t * kHeads + head) * kGroup + g) * kHeadDim)];
    const float* const key = &k[static_cast<size_t>((position * kHeads + head) * kHeadDim)];
    double sum = 0.0;
    for (int i = 0; i < kHeadDim; ++i) sum += static_cast<double>(query[i]) * key[i];
    return sum / std::sqrt(kHeadDim);
  }
  LayerTokens rows(int64_t first, int64_t count) {
    const int64_t wide = kHeads * kGroup * kHeadDim, narrow = kHeads * kHeadDim;
    return {count,
            q.data() + first * wide,
            k.data() + first * narrow,
            v.data() + first * narrow,
            decisions.data() + first * kHeads,
            importance.data() + first * kHeads,
            out.data() + first * wide};
  }
};

inline CacheConfig config_for(const char* policy, int64_t budget) {
  CacheConfig config;
  config.layers = 1;
  config.kv_heads = kHeads;
  config.query_heads = kHeads * kGroup;
  config.head_dim = kHeadDim;
  config.window = 1;
  config.page_slots = 8;
  config.policy = policy::find_policy(policy);
  config.budget = budget;
  return config;
}

}  // namespace dmc::cache::eviction_testing

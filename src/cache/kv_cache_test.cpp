#include "cache/kv_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace dmc::cache {
namespace {

constexpr int kLayers = 2, kHeads = 2, kHeadDim = 16;

CacheConfig small_config(int window, int page_slots, int64_t delay = 0) {
  CacheConfig config;
  config.layers = kLayers;
  config.kv_heads = kHeads;
  config.query_heads = 2 * kHeads;
  config.head_dim = kHeadDim;
  config.window = window;
  config.page_slots = page_slots;
  config.delay = delay;
  return config;
}

// Random tokens for all layers; owns what LayerTokens points into.
struct Tokens {
  int64_t count;
  std::vector<float> q, k, v, importance, out;
  std::vector<policy::Decision> decisions;

  Tokens(int64_t n, double merge_probability, Rng& rng) : count(n) {
    const auto fill = [&](std::vector<float>& values, int64_t size, double low, double high) {
      values.resize(static_cast<size_t>(size));
      for (float& x : values) x = static_cast<float>(low + (high - low) * rng.uniform());
    };
    fill(q, n * 2 * kHeads * kHeadDim, -1, 1);
    fill(k, n * kHeads * kHeadDim, -1, 1);
    fill(v, n * kHeads * kHeadDim, -1, 1);
    fill(importance, n * kHeads, 0.1, 1);
    out.resize(q.size());
    for (int64_t i = 0; i < n * kHeads; ++i) {
      const bool merges = rng.uniform() < merge_probability;
      decisions.push_back(merges ? policy::Decision::kMerge : policy::Decision::kAppend);
    }
  }
  LayerTokens view() {
    return {count, q.data(), k.data(), v.data(), decisions.data(), importance.data(), out.data()};
  }
};

void prefill(KvCache& cache, SequenceId id, Tokens& tokens) {
  for (int layer = 0; layer < kLayers; ++layer) cache.prefill(id, layer, tokens.view());
  cache.advance(id, tokens.count);
}

void decode(KvCache& cache, std::span<const SequenceId> ids, Tokens& tokens) {
  for (int layer = 0; layer < kLayers; ++layer) cache.decode(ids, layer, tokens.view());
  for (SequenceId id : ids) cache.advance(id, 1);
}

std::vector<float> dump(const KvCache& cache, SequenceId id) {
  std::vector<float> all, key(kHeadDim), value(kHeadDim);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int head = 0; head < kHeads; ++head) {
      for (int64_t i = 0; i < cache.slots(id, layer, head); ++i) {
        cache.read_slot(id, layer, head, i, key, value);
        all.insert(all.end(), key.begin(), key.end());
        all.insert(all.end(), value.begin(), value.end());
      }
    }
  }
  return all;
}

// What a cache may use at most: its closed slots, less than a page per stream of slack, the open
// slots.
void expect_frugal(const KvCache& cache, const std::vector<SequenceId>& ids) {
  const CacheConfig& config = cache.config();
  const int64_t entry = 2 * kHeadDim * static_cast<int64_t>(sizeof(float));
  int64_t slots = 0;
  for (SequenceId id : ids) slots += cache.slots(id);
  const int64_t streams = static_cast<int64_t>(ids.size()) * kLayers * kHeads;
  EXPECT_LE(cache.bytes().pages, slots * entry + streams * config.page_slots * entry);
}

// Any order of operations leaves the accounting right, and no sequence sees another's.
TEST(KvCache, RandomOperationsKeepItsInvariants) {
  for (int window : {0, 1, 12}) {
    for (int page_slots : {1, 8, 16}) {
      const uint64_t seed = static_cast<uint64_t>(100 * window + page_slots);
      const int64_t delay = (window + page_slots) % 3 == 1 ? 0 : 2 * window + 5;
      SCOPED_TRACE("seed " + std::to_string(seed) + " delay " + std::to_string(delay));
      Rng rng(seed);
      KvCache cache(small_config(window, page_slots, delay));
      std::vector<SequenceId> ids;
      for (int step = 0; step < 150; ++step) {
        const uint64_t kind = rng.below(10);
        if (ids.empty() || kind == 0) {
          ids.push_back(cache.add_sequence());
        } else if (kind == 1 && ids.size() < 8) {
          ids.push_back(cache.fork(ids[rng.below(ids.size())]));
        } else if (kind == 2) {
          const size_t victim = rng.below(ids.size());
          cache.release(ids[victim]);
          ids.erase(ids.begin() + static_cast<long>(victim));
        } else if (kind < 6) {
          const SequenceId id = ids[rng.below(ids.size())];
          std::map<SequenceId, std::vector<float>> others;
          for (SequenceId other : ids) {
            if (other != id) others[other] = dump(cache, other);
          }
          Tokens tokens(1 + static_cast<int64_t>(rng.below(30)), 0.7, rng);
          prefill(cache, id, tokens);
          for (const auto& [other, before] : others) ASSERT_EQ(dump(cache, other), before);
        } else {
          Tokens tokens(static_cast<int64_t>(ids.size()), 0.7, rng);
          decode(cache, ids, tokens);
        }
        ASSERT_NO_THROW(cache.check_invariants()) << "step " << step;
        expect_frugal(cache, ids);
      }
      for (SequenceId id : ids) cache.release(id);
      EXPECT_EQ(cache.bytes().total(), 0) << "every page must have come back";
    }
  }
}

// Without a window nothing is dropped: the weights of all slots sum to the tokens' importances. A
// closed slot's weight is what the open one weighed just before it closed.
TEST(KvCache, WeightsAreConserved) {
  Rng rng(3);
  KvCache cache(small_config(/*window=*/0, /*page_slots=*/8));
  const SequenceId id = cache.add_sequence();
  double expected = 0.0, closed_weight = 0.0;
  for (int t = 0; t < 60; ++t) {
    Tokens token(1, 0.6, rng);
    const double before = cache.slots(id, 0, 0) > 0 ? cache.open_weight(id, 0, 0) : 0.0;
    const int64_t slots_before = cache.slots(id, 0, 0);
    decode(cache, std::span(&id, 1), token);
    if (cache.slots(id, 0, 0) > slots_before) closed_weight += before;
    expected += token.importance[0];
    ASSERT_NEAR(closed_weight + cache.open_weight(id, 0, 0), expected, 1e-4);
  }
}

// Page ids mean nothing beyond the page table: a cache whose free list was stirred first gives the
// same outputs to the bit.
TEST(KvCache, OutputsDoNotDependOnPageIds) {
  const auto run = [](bool stirred) {
    KvCache cache(small_config(12, 8));
    Rng rng(11);
    if (stirred) {
      Rng other(12);
      std::vector<SequenceId> ids;
      for (int i = 0; i < 5; ++i) {
        ids.push_back(cache.add_sequence());
        Tokens tokens(40, 0.3, other);
        prefill(cache, ids.back(), tokens);
      }
      for (size_t i : {3, 0, 4, 1}) cache.release(ids[i]);
    }
    const SequenceId id = cache.add_sequence();
    Tokens prompt(100, 0.5, rng), next(1, 0.5, rng);
    prefill(cache, id, prompt);
    decode(cache, std::span(&id, 1), next);
    prompt.out.insert(prompt.out.end(), next.out.begin(), next.out.end());
    return prompt.out;
  };
  EXPECT_EQ(run(false), run(true));
}

TEST(KvCache, BytesOfAStreamAreKnownBeforehand) {
  for (DType type : {DType::kF32, DType::kBF16, DType::kI8, DType::kF8E4M3}) {
    for (int64_t tokens : {1, 8, 9, 50}) {
      CacheConfig config = small_config(12, 8, type == DType::kI8 ? 9 : 0);
      config.slot_type = type;
      KvCache cache(config);
      Rng rng(13);
      Tokens prompt(tokens, 0.0, rng);
      prefill(cache, cache.add_sequence(), prompt);
      const CacheBytes stream = stream_bytes(config, tokens);
      EXPECT_EQ(cache.bytes().total(), kLayers * kHeads * stream.total()) << tokens << " tokens";
    }
  }
}

TEST(KvCache, SaysWhenItIsFullAndGetsItsPagesBack) {
  CacheConfig config = small_config(1, 8);
  config.max_pages = kLayers * kHeads;
  KvCache cache(config);
  const SequenceId id = cache.add_sequence();
  Rng rng(4);
  Tokens fits(9, 0.0, rng), too_many(30, 0.0, rng);
  prefill(cache, id, fits);
  EXPECT_THROW(prefill(cache, id, too_many), Error);
  cache.release(id);
  EXPECT_EQ(cache.bytes().total(), 0);
  EXPECT_NO_THROW(cache.check_invariants());
}

}  // namespace
}  // namespace dmc::cache

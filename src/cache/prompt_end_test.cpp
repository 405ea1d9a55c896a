// SnapKV against its published meaning, written out with all keys and queries in f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cache/eviction_testing.h"

namespace dmc::cache {
namespace {

using namespace eviction_testing;

constexpr int64_t kObserving = 32;

// What the published update_kv() keeps of a prompt of `tokens`, heads of a group taken as one by
// their mean: positions, ascending.
std::vector<int64_t> published(const Text& text, int64_t tokens, int head, int64_t capacity) {
  std::vector<int64_t> kept;
  if (tokens < capacity) {
    kept.resize(static_cast<size_t>(tokens));
    std::iota(kept.begin(), kept.end(), 0);
    return kept;
  }
  const int64_t before = tokens - kObserving;
  std::vector<double> summed(static_cast<size_t>(before));
  for (int g = 0; g < kGroup; ++g) {
    for (int64_t query = before; query < tokens; ++query) {
      double total = 0.0;
      for (int64_t key = 0; key <= query; ++key) total += std::exp(text.score(query, head, g, key));
      for (int64_t key = 0; key < before; ++key) {
        summed[static_cast<size_t>(key)] +=
            std::exp(text.score(query, head, g, key)) / total / kGroup;
      }
    }
  }
  std::vector<std::pair<double, int64_t>> pooled;  // avg_pool1d, kernel 5, padded with zeros
  for (int64_t key = 0; key < before; ++key) {
    double sum = 0.0;
    for (int64_t near = key - 2; near <= key + 2; ++near) {
      if (near >= 0 && near < before) sum += summed[static_cast<size_t>(near)];
    }
    pooled.emplace_back(-sum / 5.0, key);
  }
  std::ranges::sort(pooled);
  for (int64_t i = 0; i < capacity - kObserving; ++i) {
    kept.push_back(pooled[static_cast<size_t>(i)].second);
  }
  std::ranges::sort(kept);
  for (int64_t key = before; key < tokens; ++key) kept.push_back(key);
  return kept;
}

std::vector<int64_t> all_heads(const KvCache& cache, SequenceId id) {
  std::vector<int64_t> kept;
  for (int head = 0; head < kHeads; ++head) {
    const auto of_head = cache.kept_positions(id, 0, head);
    kept.insert(kept.end(), of_head.begin(), of_head.end());
  }
  return kept;
}

std::vector<int64_t> published_heads(const Text& text, int64_t tokens, int64_t capacity) {
  std::vector<int64_t> kept;
  for (int head = 0; head < kHeads; ++head) {
    const auto of_head = published(text, tokens, head, capacity);
    kept.insert(kept.end(), of_head.begin(), of_head.end());
  }
  return kept;
}

TEST(PromptEnd, KeepsWhatThePublishedMethodKeeps) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Text text(seed);
    Rng rng(seed + 500);
    const auto tokens = static_cast<int64_t>(40 + rng.below(kTokens - 40));
    const auto capacity = static_cast<int64_t>(kObserving + 1 + rng.below(50));
    KvCache cache(config_for("snapkv", capacity));
    const SequenceId id = cache.add_sequence();
    for (int64_t done = 0; done < tokens;) {  // the observing tokens may come in several chunks
      const int64_t count = std::min(tokens - done, static_cast<int64_t>(1 + rng.below(60)));
      cache.prefill(id, 0, text.rows(done, count));
      cache.advance(id, count);
      done += count;
    }
    EXPECT_EQ(cache.slots(id), kHeads * tokens) << "nothing goes before the prompt ends";
    cache.end_prompt(id);
    cache.check_invariants();
    EXPECT_EQ(all_heads(cache, id), published_heads(text, tokens, capacity))
        << "seed " << seed << ", " << tokens << " tokens, capacity " << capacity;
  }
}

// Decoding attends to what was kept and adds to it; nothing goes any more.
TEST(PromptEnd, DecodingAppends) {
  constexpr int64_t kPrompt = 90, kCapacity = 48;
  Text text(77);
  KvCache cache(config_for("snapkv", kCapacity));
  const SequenceId id = cache.add_sequence();
  cache.prefill(id, 0, text.rows(0, kPrompt));
  cache.advance(id, kPrompt);
  cache.end_prompt(id);
  const SequenceId copy = cache.fork(id);
  for (int64_t t = kPrompt; t < kTokens; ++t) {
    cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
    cache.advance(id, 1);
  }
  EXPECT_EQ(cache.slots(id, 0, 0), kCapacity + kTokens - kPrompt);
  EXPECT_EQ(cache.slots(copy, 0, 0), kCapacity);

  std::vector<int64_t> keys = published(text, kPrompt, 0, kCapacity);
  for (int64_t t = kPrompt; t < kTokens; ++t) keys.push_back(t);
  double total = 0.0, first_channel = 0.0;
  for (int64_t key : keys) {
    const double weight = std::exp(text.score(kTokens - 1, 0, 0, key));
    total += weight;
    first_channel += weight * text.v[static_cast<size_t>(key * kHeads * kHeadDim)];
  }
  EXPECT_NEAR(text.out[(kTokens - 1) * kHeads * kGroup * kHeadDim], first_channel / total, 2e-5);
  cache.release(id);
  cache.release(copy);
  EXPECT_EQ(cache.bytes().total(), 0);
}

// A second prompt behind the first one is compressed again, to the same budget.
TEST(PromptEnd, EveryPromptOfAConversationIsCompressed) {
  Text text(3);
  KvCache cache(config_for("snapkv", 40));
  const SequenceId id = cache.add_sequence();
  for (int64_t first : {0, 60, 70}) {
    const int64_t count = first == 0 ? 60 : first == 60 ? 10 : 50;
    cache.prefill(id, 0, text.rows(first, count));
    cache.advance(id, count);
    cache.end_prompt(id);
    cache.check_invariants();
    EXPECT_EQ(cache.slots(id), kHeads * 40);
    EXPECT_EQ(cache.kept_positions(id, 0, 0).back(), first + count - 1);
  }
}

TEST(PromptEnd, ABudgetAsARatioIsAShareOfThePrompt) {
  Text text(4);
  CacheConfig config = config_for("snapkv", 0);
  config.cr = 2.0;
  KvCache cache(config);
  const SequenceId id = cache.add_sequence();
  cache.prefill(id, 0, text.rows(0, 110));
  cache.advance(id, 110);
  cache.end_prompt(id);
  EXPECT_EQ(cache.slots(id), kHeads * 55);
}

}  // namespace
}  // namespace dmc::cache

// DMS: a token that was decided against is seen for `delay` tokens more, then it is gone. Against a
// literal attention mask over all keys and values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cache/eviction_testing.h"

namespace dmc::cache {
namespace {

using namespace eviction_testing;

CacheConfig dms_config(int64_t delay) {
  CacheConfig config = config_for("dms", 0);
  config.delay = delay;
  return config;
}

Text random_decisions(uint64_t seed, double share) {
  Text text(seed);
  Rng rng(seed + 1000);
  for (policy::Decision& decision : text.decisions) {
    if (rng.uniform() < share) decision = policy::Decision::kDropPrevious;
  }
  return text;
}

// The decision that token j + 1 brings is about token j.
bool sees(const Text& text, int head, int64_t query, int64_t key, int64_t delay) {
  if (key > query) return false;
  const bool marked =
      key < query &&
      policy::hides_previous(text.decisions[static_cast<size_t>((key + 1) * kHeads + head)]);
  return !marked || query - key <= delay;
}

std::vector<int64_t> seen(const Text& text, int head, int64_t query, int64_t delay) {
  std::vector<int64_t> keys;
  for (int64_t key = 0; key <= query; ++key) {
    if (sees(text, head, query, key, delay)) keys.push_back(key);
  }
  return keys;
}

void expect_masked_attention(const Text& text, int64_t delay, const std::string& what) {
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int row = 0; row < kHeads * kGroup; ++row) {
      const int head = row / kGroup;
      std::vector<double> out(kHeadDim);
      double total = 0.0;
      for (int64_t key : seen(text, head, t, delay)) {
        const double weight = std::exp(text.score(t, head, row % kGroup, key));
        total += weight;
        for (int i = 0; i < kHeadDim; ++i) {
          out[static_cast<size_t>(i)] +=
              weight * text.v[static_cast<size_t>((key * kHeads + head) * kHeadDim + i)];
        }
      }
      for (int i = 0; i < kHeadDim; ++i) {
        const auto at = static_cast<size_t>((t * kHeads * kGroup + row) * kHeadDim + i);
        ASSERT_NEAR(text.out[at], out[static_cast<size_t>(i)] / total, 2e-5)
            << what << ", token " << t << ", query head " << row << ", delay " << delay;
      }
    }
  }
}

std::vector<int64_t> kept(const KvCache& cache, SequenceId id, int head) {
  std::vector<int64_t> positions = cache.kept_positions(id, 0, head);
  std::ranges::sort(positions);
  return positions;
}

class DelayedDrop : public testing::TestWithParam<int64_t> {};

TEST_P(DelayedDrop, StepByStepIsTheLiteralMask) {
  const int64_t delay = GetParam();
  Text text = random_decisions(static_cast<uint64_t>(delay), 0.6);
  KvCache cache(dms_config(delay));
  const SequenceId id = cache.add_sequence();
  for (int64_t t = 0; t < kTokens; ++t) {
    cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
    cache.advance(id, 1);
    cache.check_invariants();
    for (int head = 0; head < kHeads; ++head) {
      ASSERT_EQ(kept(cache, id, head), seen(text, head, t, delay)) << "token " << t;
    }
  }
  expect_masked_attention(text, delay, "decode");
}

// A prompt in chunks of any sizes, then single tokens: the same mask, the same slots.
TEST_P(DelayedDrop, OnePassInChunksIsTheLiteralMask) {
  const int64_t delay = GetParam();
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Text text = random_decisions(100 + seed, 0.2 + 0.06 * static_cast<double>(seed));
    Rng sizes(seed);
    KvCache cache(dms_config(delay));
    const SequenceId id = cache.add_sequence();
    for (int64_t done = 0; done < kTokens;) {
      const auto wanted = static_cast<int64_t>(sizes.below(3) == 0 ? 1 : 1 + sizes.below(90));
      const int64_t count = std::min(kTokens - done, wanted);
      cache.prefill(id, 0, text.rows(done, count));
      cache.advance(id, count);
      cache.check_invariants();
      done += count;
      for (int head = 0; head < kHeads; ++head) {
        ASSERT_EQ(kept(cache, id, head), seen(text, head, done - 1, delay))
            << "seed " << seed << " after " << done;
      }
    }
    expect_masked_attention(text, delay, "prefill, seed " + std::to_string(seed));
  }
}

INSTANTIATE_TEST_SUITE_P(Delays, DelayedDrop, testing::Values(0, 1, 2, 7, 8, 63, 64, 65, 500));

// The edge itself, without chance: one marked token, seen by the query `delay` later, not by the
// next.
TEST(DelayedDropEdge, LastSeenExactlyDelayTokensLater) {
  constexpr int64_t kDelay = 5, kMarked = 3;
  Text text(1);
  for (int head = 0; head < kHeads; ++head) {
    text.decisions[(kMarked + 1) * kHeads + head] = policy::Decision::kDropPrevious;
  }
  KvCache cache(dms_config(kDelay));
  const SequenceId id = cache.add_sequence();
  for (int64_t t = 0; t <= kMarked + kDelay + 1; ++t) {
    cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
    cache.advance(id, 1);
    const int64_t gone = t > kMarked + kDelay ? 1 : 0;
    EXPECT_EQ(cache.slots(id, 0, 0), t + 1 - gone) << "token " << t;
    EXPECT_EQ(cache.marked(id), t > kMarked && gone == 0 ? kHeads : 0) << "token " << t;
  }
}

TEST(DelayedDropPages, ComeBackWhileTheSequenceRunsAndWhenAPoolRunsDry) {
  Text text = random_decisions(5, 1.0);
  CacheConfig config = dms_config(16);
  config.max_pages = kHeads * 4;  // 17 tokens are seen, in pages of 8
  KvCache cache(config);
  const SequenceId id = cache.add_sequence();
  for (int64_t t = 0; t < kTokens; ++t) {
    cache.decode(std::span(&id, 1), 0, text.rows(t, 1));
    cache.advance(id, 1);
  }
  EXPECT_EQ(cache.slots(id), kHeads * 17);
  const SequenceId other = cache.add_sequence();
  EXPECT_ANY_THROW(cache.prefill(other, 0, text.rows(0, kTokens)));
  cache.release(other);
  cache.check_invariants();
  cache.release(id);
  EXPECT_EQ(cache.bytes().total(), 0);
}

TEST(DelayedDropFork, BothSidesGoOnAsIfAlone) {
  Text a = random_decisions(8, 0.5), b = a;
  KvCache cache(dms_config(9));
  const SequenceId parent = cache.add_sequence();
  cache.prefill(parent, 0, a.rows(0, 50));
  cache.advance(parent, 50);
  const SequenceId child = cache.fork(parent);
  for (int64_t t = 50; t < kTokens; ++t) {
    cache.decode(std::span(&parent, 1), 0, a.rows(t, 1));
    cache.advance(parent, 1);
  }
  b.out = a.out;
  cache.prefill(child, 0, b.rows(50, kTokens - 50));
  cache.advance(child, kTokens - 50);
  cache.check_invariants();
  expect_masked_attention(b, 9, "child");
  EXPECT_EQ(kept(cache, child, 1), kept(cache, parent, 1));
}

}  // namespace
}  // namespace dmc::cache

// Sequences as bytes: what comes back is the same to the bit, and what was tampered with is refused
// or harmless.
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "cache/kv_cache.h"
#include "policy/policy.h"

namespace dmc::cache {
namespace {

constexpr int kLayers = 2, kHeads = 2, kHeadDim = 8;

struct Kind {
  std::string name;
  CacheConfig config;
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const char* policy : {"dense", "dmc", "dms", "dmc-delayed"}) {
    for (const DType type : {DType::kF32, DType::kF16, DType::kI8}) {
      for (const int window : {0, 3}) {
        CacheConfig config;
        config.layers = kLayers, config.kv_heads = kHeads, config.query_heads = 2 * kHeads;
        config.head_dim = kHeadDim, config.window = window, config.page_slots = 4;
        config.slot_type = type;
        config.policy = policy::find_policy(policy);
        EXPECT_NE(config.policy, nullptr) << policy;
        if (config.policy->delayed) config.delay = 5;
        config.newest_weighs_one = config.policy->carry == policy::Carry::kBesideNewest;
        config.mass_term = window > 0;
        config.max_pages = 400;
        all.push_back({std::string(policy) + " " + std::to_string(window), config});
      }
    }
  }
  return all;
}

// Takes `count` random tokens in; returns what attention gave.
std::vector<float> take(KvCache& cache, SequenceId id, int64_t count, uint64_t seed) {
  Rng rng(seed);
  const auto numbers = [&](int64_t size, double low, double high) {
    std::vector<float> all(static_cast<size_t>(size));
    for (float& x : all) x = static_cast<float>(low + (high - low) * rng.uniform());
    return all;
  };
  std::vector<float> all;
  for (int layer = 0; layer < kLayers; ++layer) {
    const auto q = numbers(count * 2 * kHeads * kHeadDim, -1, 1);
    const auto k = numbers(count * kHeads * kHeadDim, -1, 1);
    const auto v = numbers(count * kHeads * kHeadDim, -1, 1);
    const auto importance = numbers(count * kHeads, 0.1, 1);
    std::vector<policy::Decision> decisions;
    const auto hides = cache.config().policy->carry == policy::Carry::kNothing
                           ? policy::Decision::kDropPrevious
                           : policy::Decision::kMerge;
    for (int64_t i = 0; i < count * kHeads; ++i) {
      decisions.push_back(rng.uniform() < 0.6 ? hides : policy::Decision::kAppend);
    }
    std::vector<float> out(q.size());
    const LayerTokens tokens{
        count, q.data(), k.data(), v.data(), decisions.data(), importance.data(), out.data()};
    if (count == 1) {
      cache.decode({&id, 1}, layer, tokens);
    } else {
      cache.prefill(id, layer, tokens);
    }
    all.insert(all.end(), out.begin(), out.end());
  }
  cache.advance(id, count);
  return all;
}

SequenceId written(KvCache& cache, int64_t tokens, uint64_t seed) {
  const SequenceId id = cache.add_sequence();
  for (int64_t left = tokens, part = 1; left > 0; left -= part, ++seed) {
    part = std::min<int64_t>(left, 1 + static_cast<int64_t>(seed % 4) * 5);
    take(cache, id, part, seed);
  }
  return id;
}

TEST(SavedSequence, GoesOnToTheBitInAnotherCache) {
  for (const auto& [name, config] : kinds()) {
    for (const int64_t length : {0, 1, 4, 5, 6, 17, 64}) {
      SCOPED_TRACE(name + ", " + std::to_string(length) + " tokens");
      KvCache one(config), other(config);
      other.release(written(other, 40, 3));  // pages that held something
      const SequenceId a = written(one, length, 7);
      const std::string bytes = one.save(a);
      const SequenceId b = other.restore(bytes);
      EXPECT_EQ(other.length(b), length);
      EXPECT_EQ(other.save(b), bytes);
      other.check_invariants();
      for (const int64_t count : {1, 9, 1, 1, 30}) {
        const auto seed = static_cast<uint64_t>(1000 + count);
        ASSERT_EQ(take(one, a, count, seed), take(other, b, count, seed));
      }
      EXPECT_EQ(one.save(a), other.save(b));
      EXPECT_EQ(one.save(one.fork(a)), one.save(a));
      other.check_invariants();
    }
  }
}

// Any byte may be another, and the end may be missing. What is accepted is a sequence like any.
TEST(SavedSequence, TamperedBytesAreRefusedOrHarmless) {
  for (const auto& [name, config] : kinds()) {
    SCOPED_TRACE(name);
    KvCache cache(config);
    const SequenceId kept = written(cache, 20, 5);
    const std::string bytes = cache.save(kept);
    const int64_t free = cache.free_pages();
    int refused = 0;
    Rng rng(11);
    for (int trial = 0; trial < 600; ++trial) {
      std::string other = bytes;
      if (trial % 3 == 0) {
        other.resize(rng.below(bytes.size()));
      } else {  // counts stand at the front
        const size_t at = rng.below(trial % 3 == 1 ? bytes.size() : 64);
        other[at] = static_cast<char>(other[at] ^ static_cast<char>(1 + rng.below(255)));
      }
      try {
        const SequenceId id = cache.restore(other);
        cache.check_invariants();
        take(cache, id, 1, 1);
        take(cache, id, 6, 2);
        cache.check_invariants();
        cache.release(id);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kData) << error.what();
        ++refused;
      }
      ASSERT_EQ(cache.free_pages(), free);
    }
    EXPECT_GE(refused, 200);
    EXPECT_EQ(cache.save(kept), bytes);
  }
}

TEST(SavedSequence, OtherCachesRefuseIt) {
  CacheConfig config = kinds().front().config, other = config;
  KvCache cache(config);
  const std::string bytes = cache.save(written(cache, 20, 5));
  other.window = 7;
  KvCache differs(other);
  EXPECT_THROW(differs.restore(bytes), Error);
  config.max_pages = 3;
  KvCache small(config);
  try {
    small.restore(bytes);
    FAIL() << "there are too few pages";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kExhausted);
  }
  EXPECT_EQ(small.free_pages(), 3);
}

}  // namespace
}  // namespace dmc::cache

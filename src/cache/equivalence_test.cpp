// Prefill in one pass, prefill in chunks and decoding token by token give the outputs and slots
// that policy/reference.h defines, whatever the decisions, window, group, head and page sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "base/parallel.h"
#include "base/rng.h"
#include "cache/kv_cache.h"
#include "policy/reference.h"

namespace dmc::cache {
namespace {

constexpr int kHeads = 2;
constexpr int64_t kTokens = 80;
constexpr double kTheta = 10000.0;
// Means and softmax sums of at most kTokens terms of size 1, all in f32.
const double kTolerance =
    16 * std::numeric_limits<float>::epsilon() * std::sqrt(static_cast<double>(kTokens));

struct Case {
  int window, group, head_dim;
  double merge_probability;
  bool mass_term = false;
  int64_t delay = 0;
  bool newest_weighs_one = false;
  bool drops = false;  // decisions are about dropping instead of merging
};

struct Inputs {
  int64_t tokens;
  int group, head_dim;
  std::vector<float> q, k, v, importance;  // as in LayerTokens
  std::vector<policy::Decision> decisions;

  Inputs(const Case& c, int64_t count, Rng& rng)
      : tokens(count), group(c.group), head_dim(c.head_dim) {
    const auto fill = [&](std::vector<float>& values, int64_t size, double low) {
      for (int64_t i = 0; i < size; ++i) {
        values.push_back(static_cast<float>(low + (1.0 - low) * rng.uniform()));
      }
    };
    fill(q, count * kHeads * group * head_dim, -1.0);
    fill(k, count * kHeads * head_dim, -1.0);
    fill(v, count * kHeads * head_dim, -1.0);
    fill(importance, count * kHeads, 0.01);
    for (int64_t i = 0; i < count * kHeads; ++i) {
      const auto decided = c.drops ? policy::Decision::kDropPrevious : policy::Decision::kMerge;
      const bool decides = rng.uniform() < c.merge_probability;
      decisions.push_back(decides ? decided : policy::Decision::kAppend);
    }
  }
  LayerTokens view(int64_t first, int64_t count, std::vector<float>& out) const {
    const int64_t row = int64_t{kHeads} * head_dim, query_row = row * group;
    return {count,
            q.data() + first * query_row,
            k.data() + first * row,
            v.data() + first * row,
            decisions.data() + first * kHeads,
            importance.data() + first * kHeads,
            out.data() + first * query_row};
  }
};

// What a path through the cache leaves behind: outputs [T][query heads][d], and per head the slots,
// each a key and a value.
struct Result {
  std::vector<float> out;
  std::vector<float> slots[kHeads];
};

policy::Vector vector_at(const std::vector<float>& values, int64_t row, int head_dim) {
  const auto begin = values.begin() + row * head_dim;
  return policy::Vector(begin, begin + head_dim);
}

// With a delay slots lie in any order: brought into one of their own.
std::vector<float> in_order(const std::vector<float>& slots, const Case& c) {
  if (c.delay == 0) return slots;
  std::vector<std::vector<float>> each;
  for (auto slot = slots.begin(); slot != slots.end(); slot += 2 * c.head_dim) {
    each.emplace_back(slot, slot + 2 * c.head_dim);
  }
  std::ranges::sort(each);
  std::vector<float> all;
  for (const std::vector<float>& slot : each) all.insert(all.end(), slot.begin(), slot.end());
  return all;
}

Result reference(const Inputs& in, const Case& c) {
  Result result;
  result.out.resize(in.q.size());
  for (int head = 0; head < kHeads; ++head) {
    policy::ReferenceStream stream({c.window, kTheta, c.mass_term, c.delay, c.newest_weighs_one});
    for (int64_t t = 0; t < in.tokens; ++t) {
      const int64_t row = t * kHeads + head;
      policy::ReferenceToken token{vector_at(in.k, row, in.head_dim),
                                   vector_at(in.v, row, in.head_dim),
                                   {},
                                   in.decisions[static_cast<size_t>(row)],
                                   in.importance[static_cast<size_t>(row)]};
      for (int g = 0; g < in.group; ++g) {
        token.q.push_back(vector_at(in.q, row * in.group + g, in.head_dim));
      }
      float* out = result.out.data() + row * in.group * in.head_dim;
      for (const policy::Vector& query_out : stream.step(token)) {
        for (double x : query_out) *out++ = static_cast<float>(x);
      }
    }
    for (const policy::ReferenceSlot& slot : stream.slots()) {
      for (double x : slot.key) result.slots[head].push_back(static_cast<float>(x));
      for (double x : slot.value) result.slots[head].push_back(static_cast<float>(x));
    }
    result.slots[head] = in_order(result.slots[head], c);
  }
  return result;
}

std::vector<float> slots_of(const KvCache& cache, SequenceId id, int head) {
  std::vector<float> all, key(static_cast<size_t>(cache.config().head_dim)), value(key.size());
  for (int64_t slot = 0; slot < cache.slots(id, 0, head); ++slot) {
    cache.read_slot(id, 0, head, slot, key, value);
    all.insert(all.end(), key.begin(), key.end());
    all.insert(all.end(), value.begin(), value.end());
  }
  return all;
}

KvCache make_cache(const Case& c, int page_slots, const kernels::RopeTable& rope) {
  CacheConfig config;
  config.layers = 1;
  config.kv_heads = kHeads;
  config.query_heads = kHeads * c.group;
  config.head_dim = c.head_dim;
  config.window = c.window;
  config.page_slots = page_slots;
  config.mass_term = c.mass_term;
  config.delay = c.delay;
  config.newest_weighs_one = c.newest_weighs_one;
  config.rope = &rope;
  return KvCache(config);
}

// Takes the tokens in by prefills of the given sizes; size 1 decodes.
Result run(KvCache& cache, const Inputs& in, const Case& c, const std::vector<int64_t>& sizes) {
  Result result;
  result.out.assign(in.q.size(), std::numeric_limits<float>::quiet_NaN());
  const SequenceId id = cache.add_sequence();
  int64_t first = 0;
  for (int64_t size : sizes) {
    const LayerTokens tokens = in.view(first, size, result.out);
    if (size == 1) {
      cache.decode(std::span(&id, 1), 0, tokens);
    } else {
      cache.prefill(id, 0, tokens);
    }
    cache.advance(id, size);
    first += size;
  }
  EXPECT_EQ(first, in.tokens);
  cache.check_invariants();
  for (int head = 0; head < kHeads; ++head) {
    result.slots[head] = in_order(slots_of(cache, id, head), c);
  }
  return result;
}

std::vector<int64_t> random_sizes(int64_t tokens, Rng& rng) {
  std::vector<int64_t> sizes;
  while (tokens > 0) {
    sizes.push_back(std::min(tokens, 1 + static_cast<int64_t>(rng.below(30))));
    tokens -= sizes.back();
  }
  return sizes;
}

void expect_close(const std::vector<float>& a, const std::vector<float>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_FALSE(std::isnan(a[i])) << what;
    largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  }
  EXPECT_LT(largest, kTolerance) << what;
}

void expect_close(const Result& a, const Result& b, const char* path) {
  expect_close(a.out, b.out, path);
  for (int head = 0; head < kHeads; ++head) expect_close(a.slots[head], b.slots[head], path);
}

void expect_every_path_computes_the_reference(const Case& c, std::span<const int> page_sizes,
                                              uint64_t seed) {
  Rng rng(seed);
  const kernels::RopeTable rope(kTokens, c.head_dim, kTheta);
  const Inputs in(c, kTokens, rng);
  const Result expected = reference(in, c);
  for (int page_slots : page_sizes) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " page " + std::to_string(page_slots) +
                 " delay " + std::to_string(c.delay));
    KvCache cache = make_cache(c, page_slots, rope);
    const Result whole = run(cache, in, c, {kTokens});
    const Result chunked = run(cache, in, c, random_sizes(kTokens, rng));
    const Result decoded = run(cache, in, c, std::vector<int64_t>(kTokens, 1));
    expect_close(whole, expected, "one prefill");
    expect_close(chunked, expected, "chunks");
    expect_close(decoded, expected, "decoding");
    for (int head = 0; head < kHeads; ++head) {  // what is kept is the same to the bit
      EXPECT_EQ(chunked.slots[head], whole.slots[head]);
      EXPECT_EQ(decoded.slots[head], whole.slots[head]);
    }
  }
}

// Window; mass term.
class Equivalence : public testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(Equivalence, EveryPathComputesTheReference) {
  const auto [window, mass_term] = GetParam();
  uint64_t seed = 0;
  for (int head_dim : {32, 64, 128}) {
    for (int group : {1, 2, 4}) {
      for (double merge_probability : {0.0, 0.5, 0.75, 1.0}) {
        expect_every_path_computes_the_reference(
            {window, group, head_dim, merge_probability, mass_term}, std::array{1, 8, 16, 64},
            ++seed);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WindowAndMassTerm, Equivalence,
                         testing::Combine(testing::Values(0, 1, 12), testing::Bool()));

// Delay; window; whether decisions drop.
class DelayedEquivalence : public testing::TestWithParam<std::tuple<int64_t, int, bool>> {};

TEST_P(DelayedEquivalence, EveryPathComputesTheReference) {
  const auto [delay, window, drops] = GetParam();
  uint64_t seed = 100;
  for (bool newest_weighs_one : {false, true}) {
    for (double probability : {0.0, 0.6, 1.0}) {
      Case c{window, 2, 32, probability};
      c.delay = delay;
      c.newest_weighs_one = newest_weighs_one;
      c.drops = drops;
      c.mass_term = probability == 0.6 && !newest_weighs_one;
      expect_every_path_computes_the_reference(c, std::array{1, 8, 16}, ++seed);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DelayWindowAndDecision, DelayedEquivalence,
                         testing::Combine(testing::Values(0, 1, 2, 7, 12, 64, kTokens - 1, kTokens,
                                                          kTokens + 9),
                                          testing::Values(0, 1, 12), testing::Bool()));

// One decision at both ends of the method: nothing carried is dropping, no delay is merging.
TEST(DelayedEnds, CarryingAlmostNothingIsDropping) {
  const kernels::RopeTable rope(kTokens, 32, kTheta);
  Rng rng(9);
  Case merges{12, 2, 32, 0.7};
  merges.delay = 7;
  merges.newest_weighs_one = true;
  Case drops = merges;
  drops.window = 1;
  Inputs in(merges, kTokens, rng);
  std::ranges::fill(in.importance, 1e-20f);
  KvCache merging = make_cache(merges, 16, rope), dropping = make_cache(drops, 16, rope);
  const Result merged = run(merging, in, merges, {kTokens});
  for (policy::Decision& decision : in.decisions) {
    if (decision == policy::Decision::kMerge) decision = policy::Decision::kDropPrevious;
  }
  expect_close(merged, run(dropping, in, drops, {kTokens}), "dropping");
}

// The same bits for any number of threads.
TEST(KvCacheThreads, DoNotChangeABit) {
  Case c{12, 2, 64, 0.4};
  c.delay = 40;
  Rng rng(7);
  const Inputs in(c, 700, rng);
  const kernels::RopeTable rope(in.tokens, c.head_dim, kTheta);
  const int threads_before = num_threads();
  std::vector<int64_t> sizes = {690};
  sizes.insert(sizes.end(), 10, 1);
  std::vector<Result> results;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    KvCache cache = make_cache(c, 16, rope);
    results.push_back(run(cache, in, c, sizes));
  }
  set_num_threads(threads_before);
  for (const Result& result : results) {
    EXPECT_EQ(result.out, results[0].out);
    for (int head = 0; head < kHeads; ++head) {
      EXPECT_EQ(result.slots[head], results[0].slots[head]);
    }
  }
}

// The same bits alone and among other sequences of other lengths.
TEST(KvCacheBatch, DoesNotChangeABit) {
  const Case c{12, 2, 64, 0.5};
  Rng rng(8);
  const Inputs prompts(c, 900, rng), step(c, 3, rng);
  const kernels::RopeTable rope(prompts.tokens + 1, c.head_dim, kTheta);
  const auto with_prompt = [&](KvCache& cache, int64_t tokens) {
    std::vector<float> out(prompts.q.size());
    const SequenceId id = cache.add_sequence();
    cache.prefill(id, 0, prompts.view(0, tokens, out));
    cache.advance(id, tokens);
    return id;
  };
  std::vector<float> alone(step.q.size()), batched(step.q.size());
  KvCache cache = make_cache(c, 16, rope);
  const SequenceId first = with_prompt(cache, 900);
  const SequenceId twin = cache.fork(first);
  const SequenceId ids[] = {with_prompt(cache, 1), twin, with_prompt(cache, 333)};
  cache.decode(std::span(&first, 1), 0, step.view(1, 1, alone));
  cache.decode(ids, 0, step.view(0, 3, batched));
  const int64_t row = int64_t{kHeads} * c.group * c.head_dim;
  EXPECT_EQ(std::vector<float>(alone.begin() + row, alone.begin() + 2 * row),
            std::vector<float>(batched.begin() + row, batched.begin() + 2 * row));
}

}  // namespace
}  // namespace dmc::cache

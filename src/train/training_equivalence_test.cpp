// The project's central test: with decisions in {0, 1}, the training forward pass, one-pass
// prefill, chunked prefill and token-by-token decoding compute the same outputs and leave the same
// cache, for tokens that merge at once (DMC), merge late, or go late (DMS).
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <tuple>

#include "cache/kv_cache.h"
#include "model/rope_frequencies.h"
#include "nn/rope.h"
#include "ops/attention.h"
#include "ops/pool.h"

namespace dmc {
namespace {

constexpr int64_t kTokens = 90, kHeadDim = 32;

std::vector<double> frequencies() {
  model::ModelConfig config;
  config.head_dim = kHeadDim;
  return model::rope_frequencies(config);
}

struct Case {
  const char* method;
  int window, delay;
  int64_t groups;
  double probability;  // of a decision

  const policy::Policy& policy() const { return *policy::find_policy(method); }
  bool carries() const { return policy().carry != policy::Carry::kNothing; }
  bool newest_weighs_one() const { return policy().carry == policy::Carry::kBesideNewest; }
};

struct Inputs {
  at::Tensor q, k, v, merge, importance_logit;  // [T, H, d], [T, K, d] x 2, [T, K] x 2
};

Inputs random_inputs(const Case& c, uint64_t seed) {
  constexpr int64_t kKvHeads = 2;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor uniform = at::rand({kTokens, kKvHeads}, generator);
  return {at::randn({kTokens, kKvHeads * c.groups, kHeadDim}, generator),
          at::randn({kTokens, kKvHeads, kHeadDim}, generator),
          at::randn({kTokens, kKvHeads, kHeadDim}, generator), uniform < c.probability,
          at::randn({kTokens, kKvHeads}, generator)};
}

at::Tensor training_forward(const Case& c, const Inputs& in) {
  const nn::Rope rope(kTokens, frequencies());
  const at::Tensor logit =
      (in.merge.to(at::kFloat) * 2 - 1) * std::numeric_limits<float>::infinity();
  const auto batched = [](const at::Tensor& x) { return x.unsqueeze(0); };
  const at::Tensor q = rope.apply(batched(in.q)), k = batched(in.k), v = batched(in.v);
  at::Tensor far_k = k, far_v = v;
  if (c.carries()) {
    std::tie(far_k, far_v) = ops::pool(k, v, batched(logit), batched(in.importance_logit), c.window,
                                       c.newest_weighs_one());
  }
  return ops::delayed_attention(q, {rope.apply(k), rope.apply(far_k)}, {v, far_v}, batched(logit),
                                c.delay)
      .squeeze(0);
}

cache::CacheConfig cache_config(const Case& c, const kernels::RopeTable& rope) {
  cache::CacheConfig config;
  config.layers = 1;
  config.kv_heads = 2;
  config.query_heads = static_cast<int>(2 * c.groups);
  config.head_dim = kHeadDim;
  config.window = c.window;
  config.delay = c.delay;
  config.newest_weighs_one = c.newest_weighs_one();
  config.policy = &c.policy();
  config.page_slots = 8;
  config.rope = &rope;
  return config;
}

// Slots that are left when all tokens are in: a decision takes one away, at once or when the token
// that took it is no longer among the newest.
int64_t slots_left(const Case& c, const Inputs& in) {
  const int64_t decided = kTokens - 1 - c.delay;  // by tokens 1 to `decided`
  return 2 * kTokens - in.merge.narrow(0, 1, decided).sum().item<int64_t>();
}

// The cache's view of tokens first..last of the same inputs; keeps what it points into alive.
struct Feed {
  Feed(const Case& c, const Inputs& in)
      : decided(c.carries() ? policy::Decision::kMerge : policy::Decision::kDropPrevious),
        q(nn::Rope(kTokens, frequencies()).apply(in.q.unsqueeze(0)).squeeze(0).contiguous()),
        k(in.k),
        v(in.v),
        importance(in.importance_logit.sigmoid().contiguous()),
        out(at::full_like(q, std::numeric_limits<float>::quiet_NaN())) {
    const at::Tensor merge = in.merge.contiguous();
    const bool* const merges = merge.const_data_ptr<bool>();
    for (int64_t i = 0; i < merge.numel(); ++i) {
      decisions.push_back(merges[i] ? decided : policy::Decision::kAppend);
    }
  }

  cache::LayerTokens tokens(int64_t first, int64_t count) const {
    const auto row = [&](const at::Tensor& t) {
      return t.const_data_ptr<float>() + first * t.stride(0);
    };
    return {count,
            row(q),
            row(k),
            row(v),
            decisions.data() + first * importance.stride(0),
            row(importance),
            out.mutable_data_ptr<float>() + first * out.stride(0)};
  }
  policy::Decision decided;
  at::Tensor q, k, v, importance, out;
  std::vector<policy::Decision> decisions;
};

// All slots of a sequence, keys and values, one after another.
std::vector<float> slots_of(const cache::KvCache& cache, cache::SequenceId id) {
  std::vector<float> all;
  std::vector<float> key(kHeadDim), value(kHeadDim);
  for (int head = 0; head < cache.config().kv_heads; ++head) {
    for (int64_t slot = 0; slot < cache.slots(id, 0, head); ++slot) {
      cache.read_slot(id, 0, head, slot, key, value);
      all.insert(all.end(), key.begin(), key.end());
      all.insert(all.end(), value.begin(), value.end());
    }
  }
  return all;
}

std::vector<int64_t> kept(const cache::KvCache& cache, cache::SequenceId id, int head) {
  std::vector<int64_t> positions = cache.kept_positions(id, 0, head);
  std::ranges::sort(positions);
  return positions;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  return largest;
}

class TrainingEquivalence : public testing::TestWithParam<Case> {};

TEST_P(TrainingEquivalence, TrainingPrefillChunksAndDecodingAgree) {
  const Case c = GetParam();
  const kernels::RopeTable rope(kTokens, frequencies());
  // Sums of at most kTokens unit-variance terms in f32.
  const double tolerance = 32 * std::numeric_limits<float>::epsilon() * std::sqrt(kTokens);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const Inputs in = random_inputs(c, seed);
    const at::Tensor expected = training_forward(c, in);
    const auto error = [&](const at::Tensor& out) {
      return (out - expected).abs().max().item<double>();
    };
    cache::KvCache cache(cache_config(c, rope));

    const Feed whole(c, in), chunked(c, in), stepwise(c, in);
    const cache::SequenceId a = cache.add_sequence();
    cache.prefill(a, 0, whole.tokens(0, kTokens));
    cache.advance(a, kTokens);
    EXPECT_LT(error(whole.out), tolerance) << "one-pass prefill, seed " << seed;

    const cache::SequenceId b = cache.add_sequence();
    int64_t done = 0;
    for (int64_t size : {1, 13, 2, 40, 34}) {
      cache.prefill(b, 0, chunked.tokens(done, size));
      cache.advance(b, size);
      done += size;
    }
    ASSERT_EQ(done, kTokens);
    EXPECT_LT(error(chunked.out), tolerance) << "chunked prefill, seed " << seed;

    const cache::SequenceId s = cache.add_sequence();
    for (int64_t t = 0; t < kTokens; ++t) {
      cache.decode(std::span(&s, 1), 0, stepwise.tokens(t, 1));
      cache.advance(s, 1);
    }
    EXPECT_LT(error(stepwise.out), tolerance) << "decoding, seed " << seed;

    for (const cache::SequenceId other : {b, s}) {
      EXPECT_EQ(cache.slots(other), slots_left(c, in));
      if (c.delay > 0) {  // slots lie in any order, but hold the same tokens
        for (int head = 0; head < 2; ++head) {
          EXPECT_EQ(kept(cache, other, head), kept(cache, a, head));
        }
      } else {
        EXPECT_LT(largest_difference(slots_of(cache, a), slots_of(cache, other)), tolerance);
      }
    }
    EXPECT_EQ(cache.slots(a), slots_left(c, in));
    cache.check_invariants();
  }
}

std::vector<Case> all_cases() {
  constexpr int kLast = static_cast<int>(kTokens) - 1;
  std::vector<Case> cases;
  for (int64_t groups : {1, 2, 4}) {
    for (double probability : {0.0, 0.6, 0.95}) {
      for (int window : {0, 1, 12}) cases.push_back({"dmc", window, 0, groups, probability});
      // Up to where nothing is dropped before the last token, or at all.
      for (int delay : {0, 1, 12, kLast - 1, kLast}) {
        cases.push_back({"dms", 1, delay, groups, probability});
        for (int window : {0, 1, 12}) {
          cases.push_back({"dmc-delayed", window, delay, groups, probability});
        }
      }
    }
  }
  return cases;
}

// Decoding as the model was trained gives pages back while the sequence runs: every token but the
// last is to go, and never are there more pages than a window's tokens need.
TEST(LateTokens, GivePagesBackWhileTheSequenceRuns) {
  const Case c = {"dms", 1, 12, 2, 1.0};
  const Inputs in = random_inputs(c, 1);
  const kernels::RopeTable rope(kTokens, frequencies());
  cache::CacheConfig config = cache_config(c, rope);
  const int64_t pages_of_window = (c.delay + 1 + config.page_slots - 1) / config.page_slots;
  config.max_pages = config.kv_heads * (pages_of_window + 1);
  cache::KvCache cache(config);
  const Feed feed(c, in);
  const cache::SequenceId id = cache.add_sequence();
  for (int64_t t = 0; t < kTokens; ++t) {
    cache.decode(std::span(&id, 1), 0, feed.tokens(t, 1));
    cache.advance(id, 1);
  }
  EXPECT_EQ(cache.slots(id), config.kv_heads * (c.delay + 1));
  EXPECT_LT((feed.out - training_forward(c, in)).abs().max().item<double>(), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Grid, TrainingEquivalence, testing::ValuesIn(all_cases()),
                         [](const auto& test) {
                           const Case& c = test.param;
                           std::string method = c.method;
                           std::ranges::replace(method, '-', '_');
                           return method + "_window" + std::to_string(c.window) + "_delay" +
                                  std::to_string(c.delay) + "_groups" + std::to_string(c.groups) +
                                  "_decisions" +
                                  std::to_string(static_cast<int>(c.probability * 100));
                         });

}  // namespace
}  // namespace dmc

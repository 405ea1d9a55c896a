#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "embed/dmc.h"

namespace dmc {
namespace {

KvCacheOptions small() {
  KvCacheOptions options;
  options.layers = 2;
  options.kv_heads = 2;
  options.query_heads = 4;
  options.head_dim = 8;
  options.window = 0;
  options.page_slots = 4;
  return options;
}

// Random tokens for every layer of small().
struct Script {
  int64_t tokens;
  std::vector<std::vector<float>> q, k, v, importance;
  std::vector<std::vector<uint8_t>> decisions;

  explicit Script(int64_t count, unsigned seed = 1) : tokens(count) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> weight(0.1f, 1.0f);
    const auto fill = [&](size_t row, auto& draw) {
      std::vector<float> values(static_cast<size_t>(count) * row);
      for (float& value : values) value = draw(random);
      return values;
    };
    for (int layer = 0; layer < 2; ++layer) {
      q.push_back(fill(4 * 8, normal));
      k.push_back(fill(2 * 8, normal));
      v.push_back(fill(2 * 8, normal));
      importance.push_back(fill(2, weight));
      decisions.emplace_back();
      for (int64_t i = 0; i < count * 2; ++i) decisions.back().push_back(random() % 2);
    }
  }
  LayerTokens part(size_t layer, int64_t first, int64_t count) const {
    return {count,
            q[layer].data() + first * 32,
            k[layer].data() + first * 16,
            v[layer].data() + first * 16,
            decisions[layer].data() + first * 2,
            importance[layer].data() + first * 2};
  }
};

// Takes tokens in; what layer 1 reads.
std::vector<float> take(KvCache& cache, const Script& script, int64_t first, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count) * 32);
  for (int layer : {1, 0}) {  // in any order
    std::vector<float> read(out.size());
    cache.attend(layer, script.part(static_cast<size_t>(layer), first, count), read.data());
    if (layer == 1) out = read;
  }
  return out;
}

// The definition: a head's slots as weighted sums, read by softmax, for the newest token.
class Definition {
 public:
  void take(const float* k, const float* v, bool merge, double weight) {
    if (!merge || slots_.empty()) slots_.push_back({});
    Slot& slot = slots_.back();
    slot.weight += weight;
    for (size_t i = 0; i < 8; ++i) {
      slot.k[i] += weight * k[i];
      slot.v[i] += weight * v[i];
    }
  }
  std::vector<double> read(const float* q) const {
    double sum = 0.0;
    std::vector<double> out(8);
    for (const Slot& slot : slots_) {
      double score = 0.0;
      for (size_t i = 0; i < 8; ++i) score += q[i] * slot.k[i] / slot.weight;
      const double share = std::exp(score / std::sqrt(8.0));
      sum += share;
      for (size_t i = 0; i < 8; ++i) out[i] += share * slot.v[i] / slot.weight;
    }
    for (double& value : out) value /= sum;
    return out;
  }
  int64_t slots() const { return std::ssize(slots_); }

 private:
  struct Slot {
    double weight = 0.0, k[8] = {}, v[8] = {};
  };
  std::vector<Slot> slots_;
};

TEST(EmbeddedCache, ReadsWhatTheDefinitionReads) {
  const Script script(40);
  KvCache cache(small());
  std::vector<float> out = take(cache, script, 0, 25);
  for (int64_t t = 25; t < 40; ++t) {
    const std::vector<float> one = take(cache, script, t, 1);
    out.insert(out.end(), one.begin(), one.end());
  }
  Definition heads[2];
  for (int64_t t = 0; t < 40; ++t) {
    const LayerTokens token = script.part(1, t, 1);
    for (int h = 0; h < 4; ++h) {
      Definition& head = heads[h / 2];
      const int64_t at = h / 2 * 8;
      if (h % 2 == 0) {
        head.take(token.k + at, token.v + at, token.decisions[h / 2] != 0, token.importance[h / 2]);
      }
      const std::vector<double> wanted = head.read(token.q + h * 8);
      for (int i = 0; i < 8; ++i) {
        EXPECT_NEAR(out[static_cast<size_t>(t * 32 + h * 8 + i)], wanted[static_cast<size_t>(i)],
                    1e-5)
            << "token " << t << ", head " << h;
      }
    }
  }
  EXPECT_EQ(cache.length(), 40);
  EXPECT_EQ(cache.slots()[2], heads[0].slots());
  EXPECT_EQ(cache.slots()[3], heads[1].slots());
  EXPECT_LT(heads[0].slots(), 40);
}

TEST(EmbeddedCache, ForksGoOnByThemselvesAndOutliveTheirParent) {
  const Script script(30);
  auto parent = std::make_unique<KvCache>(small());
  take(*parent, script, 0, 20);
  KvCache fork = parent->fork();
  const std::vector<float> wanted = take(*parent, script, 20, 10);
  const std::vector<int64_t> slots = parent->slots();
  parent.reset();
  EXPECT_EQ(fork.length(), 20);
  EXPECT_EQ(take(fork, script, 20, 10), wanted);
  EXPECT_EQ(fork.slots(), slots);
}

TEST(EmbeddedCache, TextsOfOneStepReadAsEachAlone) {
  const Script script(12), other(12, 2);
  KvCache a(small()), alone(small());
  KvCache b = a.new_text();
  take(a, script, 0, 11);
  take(b, other, 0, 7);
  take(alone, other, 0, 7);
  KvCache* texts[] = {&a, &b};
  std::vector<float> q, k, v, importance, out(2 * 32);
  for (size_t layer = 0; layer < 2; ++layer) {
    const LayerTokens one = script.part(layer, 11, 1), two = other.part(layer, 7, 1);
    q.assign(one.q, one.q + 32), q.insert(q.end(), two.q, two.q + 32);
    k.assign(one.k, one.k + 16), k.insert(k.end(), two.k, two.k + 16);
    v.assign(one.v, one.v + 16), v.insert(v.end(), two.v, two.v + 16);
    const std::vector<uint8_t> decisions = {one.decisions[0], one.decisions[1], two.decisions[0],
                                            two.decisions[1]};
    importance = {one.importance[0], one.importance[1], two.importance[0], two.importance[1]};
    KvCache::attend(texts, static_cast<int>(layer),
                    {2, q.data(), k.data(), v.data(), decisions.data(), importance.data()},
                    out.data());
  }
  const std::vector<float> wanted = take(alone, other, 7, 1);
  EXPECT_EQ(std::vector<float>(out.begin() + 32, out.end()), wanted);
  EXPECT_EQ(b.slots(), alone.slots());
  EXPECT_EQ(a.length(), 12);
}

template <class Call>
std::string field_of(Call&& call, ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.field();
  }
  return "nothing was thrown";
}

TEST(EmbeddedCache, OptionsOutOfRangeAreNamed) {
  const auto with = [](auto&& change) {
    KvCacheOptions options = small();
    change(options);
    return field_of([&] { KvCache cache(options); });
  };
  EXPECT_EQ(with([](auto& o) { o.layers = 0; }), "layers");
  EXPECT_EQ(with([](auto& o) { o.query_heads = 3; }), "query_heads");
  EXPECT_EQ(with([](auto& o) { o.policy = "best"; }), "policy");
  EXPECT_EQ(with([](auto& o) { o.policy = "forced"; }), "policy");
  EXPECT_EQ(with([](auto& o) { o.policy = "tova"; }), "budget");
  EXPECT_EQ(with([](auto& o) { o.budget = 50; }), "budget");
  EXPECT_EQ(with([](auto& o) { o.slots = "f64"; }), "slots");
  EXPECT_EQ(with([](auto& o) { o.delay = -1; }), "delay");
  EXPECT_EQ(with([](auto& o) { o.rope_theta = 1e4; }), "max_tokens");
}

TEST(EmbeddedCache, AStepGivesEachLayerItsTokensOnce) {
  const Script script(9);
  std::vector<float> out(9 * 32);
  KvCache cache(small());
  cache.attend(0, script.part(0, 0, 3), out.data());
  EXPECT_EQ(field_of([&] { cache.attend(0, script.part(0, 3, 3), out.data()); }), "layer");
  EXPECT_EQ(field_of([&] { cache.attend(1, script.part(1, 0, 2), out.data()); }), "count");
  EXPECT_EQ(field_of([&] { cache.fork(); }), "fork");
  EXPECT_EQ(field_of([&] { cache.attend(2, script.part(0, 0, 3), out.data()); }), "layer");
  EXPECT_EQ(cache.length(), 0);
  cache.attend(1, script.part(1, 0, 3), out.data());
  EXPECT_EQ(cache.length(), 3);
}

TEST(EmbeddedCache, SpentPagesAreSaidAndSpareTheOthers) {
  KvCacheOptions options = small();
  options.max_pages = 40;
  const Script script(64);
  KvCache kept(options);
  take(kept, script, 0, 16);
  const std::vector<int64_t> slots = kept.slots();
  {
    KvCache longer = kept.fork();
    EXPECT_EQ(field_of(
                  [&] {
                    for (int i = 0; i < 8; ++i) {
                      take(longer, script, 0, 64);
                    }
                  },
                  ErrorCode::kExhausted),
              "");
  }
  EXPECT_EQ(kept.slots(), slots);
  take(kept, script, 16, 4);
  EXPECT_EQ(kept.length(), 20);
}

TEST(EmbeddedCache, DelayedPoliciesLeaveTheNewestTokensAsTheyAre) {
  for (const char* policy : {"dms", "dmc-delayed"}) {
    KvCacheOptions options = small();
    options.policy = policy;
    options.delay = 10;
    Script script(60);
    for (auto& layer : script.decisions) layer.assign(layer.size(), 1);
    KvCache cache(options);
    take(cache, script, 0, 8);
    for (int64_t slots : cache.slots()) EXPECT_EQ(slots, 8) << policy;
    take(cache, script, 8, 52);
    for (int64_t slots : cache.slots()) {
      EXPECT_GE(slots, 10) << policy;
      EXPECT_LE(slots, 12) << policy;
    }
  }
}

TEST(EmbeddedCache, PoliciesWithABudgetKeepIt) {
  for (const char* policy : {"window", "tova", "h2o", "snapkv"}) {
    KvCacheOptions options = small();
    options.policy = policy;
    options.budget = 36;
    options.rope_theta = 1e4;
    options.max_tokens = 100;
    const Script script(64);
    KvCache cache(options);
    take(cache, script, 0, 63);
    cache.end_prompt();
    for (int64_t slots : cache.slots()) EXPECT_EQ(slots, 36) << policy;
    take(cache, script, 63, 1);
    EXPECT_EQ(field_of([&] { take(cache, script, 0, 64); }), "count") << policy;
  }
}

}  // namespace
}  // namespace dmc

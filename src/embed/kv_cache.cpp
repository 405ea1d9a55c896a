#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>

#include "base/join.h"
#include "cache/kv_cache.h"
#include "embed/dmc.h"

namespace dmc {
namespace {

const std::map<std::string, DType> kSlotTypes = {{"f32", DType::kF32},
                                                 {"bf16", DType::kBF16},
                                                 {"f16", DType::kF16},
                                                 {"int8", DType::kI8},
                                                 {"fp8", DType::kF8E4M3}};

void require(bool condition, const char* field, const std::string& expected) {
  if (!condition) throw invalid_argument(field, "expected " + expected);
}

const policy::Policy& policy_of(const KvCacheOptions& o) {
  const policy::Policy* policy = policy::find_policy(o.policy);
  if (policy == nullptr || policy->name == "forced") {
    throw invalid_argument("policy", "\"" + o.policy + "\" is not one of " +
                                         join(policy::policies(), ", ", &policy::Policy::name));
  }
  if (policy->least_budget == 0) {
    require(o.budget == 0, "budget", "0: the policy " + o.policy + " has no budget");
    require(o.cr == 0.0, "cr", "0: the policy " + o.policy + " has no budget");
    return *policy;
  }
  require((o.budget > 0) != (o.cr > 0.0), "budget",
          "a budget or a cr, and not both, for the policy " + o.policy);
  require(o.budget == 0 || o.budget >= policy->least_budget, "budget",
          std::to_string(policy->least_budget) + " slots or more for the policy " + o.policy);
  require(o.budget > 0 || o.cr >= 1.0, "cr", "1 or more");
  return *policy;
}

void check(const KvCacheOptions& o) {
  constexpr int kMost = 1 << 20;
  const auto counts = [](int n) { return n > 0 && n <= kMost; };
  require(counts(o.layers), "layers", "a number from 1 to 2^20");
  require(counts(o.kv_heads), "kv_heads", "a number from 1 to 2^20");
  require(counts(o.head_dim), "head_dim", "a number from 1 to 2^20");
  require(counts(o.query_heads) && o.query_heads % o.kv_heads == 0, "query_heads",
          "a multiple of kv_heads, which is " + std::to_string(o.kv_heads));
  require(o.window >= 0, "window", "0 or more");
  require(o.delay >= 0, "delay", "0 or more");
  require(o.page_slots > 0 && o.page_slots <= kMost, "page_slots", "a number from 1 to 2^20");
  require(o.max_pages >= 0, "max_pages", "0 or more");
  require(kSlotTypes.contains(o.slots), "slots", "f32, bf16, f16, int8 or fp8");
  if (o.rope_theta == 0.0) return;
  require(o.rope_theta > 0.0 && std::isfinite(o.rope_theta), "rope_theta", "a positive number");
  require(o.head_dim % 2 == 0, "head_dim", "an even number, because keys are rotated in pairs");
  constexpr int64_t kMostTokens = 1 << 24;
  require(o.max_tokens > 0 && o.max_tokens <= kMostTokens, "max_tokens",
          "the length of the longest text, up to 2^24, because rope_theta is given");
}

cache::CacheConfig cache_config(const KvCacheOptions& o, const kernels::RopeTable* rope) {
  cache::CacheConfig config;
  config.layers = o.layers;
  config.kv_heads = o.kv_heads;
  config.query_heads = o.query_heads;
  config.head_dim = o.head_dim;
  config.policy = &policy_of(o);
  const bool merges = config.policy->carry != policy::Carry::kNothing;
  config.window = merges ? o.window : 1;
  config.delay = config.policy->delayed ? o.delay : 0;
  config.newest_weighs_one = config.policy->carry == policy::Carry::kBesideNewest;
  config.budget = o.budget;
  config.cr = o.cr > 0.0 ? o.cr : 1.0;
  config.page_slots = o.page_slots;
  config.slot_type = kSlotTypes.at(o.slots);
  config.max_pages = o.max_pages;
  config.rope = rope;
  return config;
}

std::unique_ptr<kernels::RopeTable> rope_of(const KvCacheOptions& o) {
  if (o.rope_theta == 0.0) return nullptr;
  return std::make_unique<kernels::RopeTable>(o.max_tokens, o.head_dim, o.rope_theta);
}

const KvCacheOptions& checked(const KvCacheOptions& options) {
  check(options);
  return options;
}

}  // namespace

// What texts that share pages have in common.
struct KvCache::Pool {
  const KvCacheOptions options;
  const std::unique_ptr<kernels::RopeTable> rope;
  cache::KvCache cache;
  std::mutex mutex;  // of the cache

  explicit Pool(const KvCacheOptions& o)
      : options(checked(o)), rope(rope_of(o)), cache(cache_config(o, rope.get())) {}
};

struct KvCache::Text {
  Pool& pool;
  cache::SequenceId id;
  std::vector<bool> has_tokens;  // by layer: those of the step that is going on
  int64_t step_tokens = 0;       // of that step; 0: none is going on
  bool in_prompt;                // whose end the policy waits for

  Text(Pool& p, cache::SequenceId sequence)
      : pool(p),
        id(sequence),
        has_tokens(static_cast<size_t>(p.options.layers)),
        in_prompt(p.cache.config().policy->observes > 0) {}
  ~Text() {
    const std::lock_guard lock(pool.mutex);
    pool.cache.release(id);
  }

  void check_step(int layer, int64_t tokens) const {
    require(layer >= 0 && layer < pool.options.layers, "layer",
            "a number below " + std::to_string(pool.options.layers));
    require(!has_tokens[static_cast<size_t>(layer)], "layer",
            "one that does not have this step's tokens yet; there are others that lack them");
    require(step_tokens == 0 || step_tokens == tokens, "count",
            std::to_string(step_tokens) + " tokens, as the layers before in this step");
    const int64_t longest = pool.rope == nullptr ? INT64_MAX : pool.rope->positions;
    require(tokens <= longest - pool.cache.length(id), "count",
            "a text of at most max_tokens tokens");
  }
  void took(int layer, int64_t tokens) {
    step_tokens = tokens;
    has_tokens[static_cast<size_t>(layer)] = true;
    if (std::ranges::find(has_tokens, false) != has_tokens.end()) return;
    pool.cache.advance(id, tokens);
    has_tokens.assign(has_tokens.size(), false);
    step_tokens = 0;
  }
};

namespace {

void check(const LayerTokens& tokens, const float* out) {
  require(tokens.count > 0, "count", "at least one token");
  require(tokens.q != nullptr, "q", "queries");
  require(tokens.k != nullptr, "k", "keys");
  require(tokens.v != nullptr, "v", "values");
  require(out != nullptr, "out", "room for what is read");
}

// What a token does to the newest slot where its model decides to compress.
policy::Decision compresses(const policy::Policy& policy) {
  return policy.carry == policy::Carry::kNothing ? policy::Decision::kDropPrevious
                                                 : policy::Decision::kMerge;
}

// The cache's view of a layer's tokens, with what was left out written out.
struct WholeTokens {
  std::vector<policy::Decision> decisions;
  std::vector<float> importance;
  cache::LayerTokens view;

  WholeTokens(const LayerTokens& t, const KvCacheOptions& o, float* out) {
    const auto count = static_cast<size_t>(t.count * o.kv_heads);
    const policy::Policy& policy = policy_of(o);
    decisions.assign(count, policy::Decision::kAppend);
    if (t.decisions != nullptr && policy.needs_dmc_config) {
      std::ranges::transform(std::span(t.decisions, count), decisions.begin(), [&](uint8_t said) {
        return said != 0 ? compresses(policy) : policy::Decision::kAppend;
      });
    }
    if (t.importance == nullptr) importance.assign(count, 1.0f);
    view = {t.count,
            t.q,
            t.k,
            t.v,
            decisions.data(),
            t.importance != nullptr ? t.importance : importance.data(),
            out};
    const auto weights = std::span(view.importance, count);
    require(std::ranges::all_of(weights, [](float w) { return w > 0.0f && std::isfinite(w); }),
            "importance", "positive numbers");
  }
};

}  // namespace

KvCache::KvCache(std::shared_ptr<Pool> pool, std::unique_ptr<Text> text)
    : pool_(std::move(pool)), text_(std::move(text)) {}

KvCache::KvCache(const KvCacheOptions& options)
    : pool_(std::make_shared<Pool>(options)),
      text_(std::make_unique<Text>(*pool_, pool_->cache.add_sequence())) {}

KvCache::KvCache(KvCache&&) noexcept = default;
KvCache::~KvCache() = default;

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  text_.swap(other.text_);  // each with its own pool, which has to outlive it
  pool_.swap(other.pool_);
  return *this;
}

void KvCache::attend(int layer, const LayerTokens& tokens, float* out) {
  check(tokens, out);
  const WholeTokens whole(tokens, pool_->options, out);
  const std::lock_guard lock(pool_->mutex);
  text_->check_step(layer, tokens.count);
  if (tokens.count == 1 && !text_->in_prompt) {
    pool_->cache.decode({&text_->id, 1}, layer, whole.view);
  } else {
    pool_->cache.prefill(text_->id, layer, whole.view);
  }
  text_->took(layer, tokens.count);
}

void KvCache::attend(std::span<KvCache* const> texts, int layer, const LayerTokens& tokens,
                     float* out) {
  check(tokens, out);
  require(tokens.count == std::ssize(texts), "count", "one token for each text");
  const std::shared_ptr<Pool> pool = texts.front()->pool_;
  const WholeTokens whole(tokens, pool->options, out);
  const std::lock_guard lock(pool->mutex);
  std::vector<cache::SequenceId> ids;
  for (KvCache* text : texts) {
    require(text->pool_ == pool, "texts", "texts that share their pages");
    text->text_->check_step(layer, 1);
    require(!text->text_->in_prompt, "texts", "texts whose prompt has ended, by end_prompt()");
    require(std::ranges::find(ids, text->text_->id) == ids.end(), "texts", "each text once");
    ids.push_back(text->text_->id);
  }
  pool->cache.decode(ids, layer, whole.view);
  for (KvCache* text : texts) text->text_->took(layer, 1);
}

void KvCache::end_prompt() {
  const std::lock_guard lock(pool_->mutex);
  require(text_->step_tokens == 0, "end_prompt", "a text whose layers all have the same tokens");
  pool_->cache.end_prompt(text_->id);
  text_->in_prompt = false;
}

KvCache KvCache::fork() const {
  const std::lock_guard lock(pool_->mutex);
  require(text_->step_tokens == 0, "fork", "a text whose layers all have the same tokens");
  auto copy = std::make_unique<Text>(*pool_, pool_->cache.fork(text_->id));
  copy->in_prompt = text_->in_prompt;
  return {pool_, std::move(copy)};
}

KvCache KvCache::new_text() const {
  const std::lock_guard lock(pool_->mutex);
  return {pool_, std::make_unique<Text>(*pool_, pool_->cache.add_sequence())};
}

int64_t KvCache::length() const {
  const std::lock_guard lock(pool_->mutex);
  return pool_->cache.length(text_->id);
}

std::vector<int64_t> KvCache::slots() const {
  const std::lock_guard lock(pool_->mutex);
  std::vector<int64_t> slots;
  for (int layer = 0; layer < pool_->options.layers; ++layer) {
    for (int head = 0; head < pool_->options.kv_heads; ++head) {
      slots.push_back(pool_->cache.slots(text_->id, layer, head));
    }
  }
  return slots;
}

int64_t KvCache::bytes() const {
  const std::lock_guard lock(pool_->mutex);
  return pool_->cache.bytes().total();
}

const KvCacheOptions& KvCache::options() const { return pool_->options; }

}  // namespace dmc

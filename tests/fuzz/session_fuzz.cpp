// A saved conversation: the session's file (engine/session_store.h), and the compressed cache in it
// (cache/saved_stream.h), which its hashes would otherwise keep the fuzzer away from.
#include "cache/kv_cache.h"
#include "engine/session_store.h"
#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 300};

namespace {

constexpr int64_t kMostTokens = 1 << 20;
constexpr int64_t kPages = 500;

dmc::cache::CacheConfig config(const char* policy, int64_t delay) {
  dmc::cache::CacheConfig config;
  config.layers = 2, config.kv_heads = 1, config.query_heads = 1, config.head_dim = 4;
  config.window = 3, config.page_slots = 4, config.max_pages = kPages;
  config.policy = dmc::policy::find_policy(policy);
  config.delay = delay;
  return config;
}

void take(dmc::cache::KvCache& cache, dmc::cache::SequenceId id, int64_t tokens) {
  const auto numbers = static_cast<size_t>(4 * tokens);
  std::vector<float> rows(numbers, 0.5f), importance(numbers, 1.0f), out(numbers);
  const std::vector<dmc::policy::Decision> decisions(numbers, dmc::policy::Decision::kAppend);
  const dmc::cache::LayerTokens all{tokens,           rows.data(),       rows.data(), rows.data(),
                                    decisions.data(), importance.data(), out.data()};
  for (int layer = 0; layer < 2; ++layer) {
    tokens == 1 ? cache.decode({&id, 1}, layer, all) : cache.prefill(id, layer, all);
  }
  cache.advance(id, tokens);
}

// What is taken back keeps the cache's invariants, then and when it goes on.
void restore(dmc::cache::KvCache& cache, std::string_view bytes) {
  const dmc::cache::SequenceId id = cache.restore(bytes);
  cache.check_invariants();
  if (cache.free_pages() > 20) {
    take(cache, id, 1);
    take(cache, id, 5);
    cache.check_invariants();
  }
  cache.release(id);
  DMC_CHECK(cache.free_pages() == kPages);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static dmc::cache::KvCache merges(config("dmc", 0)), drops(config("dms", 3));
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  dmc::fuzz::accept_errors([&] { dmc::engine::read_session(bytes, 1, kMostTokens); });
  dmc::fuzz::accept_errors([&] { restore(merges, bytes); });
  dmc::fuzz::accept_errors([&] { restore(drops, bytes); });
  return 0;
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"tokens of a session",
           [](size_t n) {
             return dmc::engine::session_bytes({std::vector<int32_t>(1 + n / 4, 7), ""}, 1);
           }},
          {"bytes of its state",
           [](size_t n) {
             return dmc::engine::session_bytes({{7}, std::string(n, 'a')}, 1);
           }},
          {"tokens in a cache", [](size_t n) {
             const auto tokens = static_cast<int64_t>(std::min<size_t>(n / 40 + 2, kPages));
             dmc::cache::KvCache cache(config("dmc", 0));
             const auto id = cache.add_sequence();
             take(cache, id, tokens);
             return cache.save(id);
           }}};
}

// Decode attention over paged slots: bytes of slots read per second, also as a share of the read
// bandwidth probed right before and after.
#include "kernels/attention.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "beside.h"
#include "cache/page_pool.h"
#include "kernels/backend.h"
#include "machine.h"

namespace dmc::bench {
namespace {

constexpr int kHeadDim = 128;
constexpr int64_t kBytes = int64_t{256} << 20;  // of slots: past any cache
constexpr int64_t kCachedSlots = 1024;  // of one stream: some 256 KB of 8-bit slots, 512 KB of 16

enum class Pages { kRuns, kScattered };

struct Case {
  const char* name;
  DType type;
  int group;
  int page_slots;
  Pages pages;
  bool ragged;  // lengths as of compression ratios from 1 to 8, else all alike
};

constexpr Case kCases[] = {
    {"f32/MHA/page16runs", DType::kF32, 1, 16, Pages::kRuns, false},
    {"f16/MHA/page64", DType::kF16, 1, 64, Pages::kScattered, false},
    {"f16/MHA/page16runs", DType::kF16, 1, 16, Pages::kRuns, false},
    {"f16/MHA/page16scattered", DType::kF16, 1, 16, Pages::kScattered, false},
    {"f16/MHA/page16runs/ragged", DType::kF16, 1, 16, Pages::kRuns, true},
    {"f16/GQA4/page16runs", DType::kF16, 4, 16, Pages::kRuns, false},
    {"f16/GQA4/page16runs/ragged", DType::kF16, 4, 16, Pages::kRuns, true},
    {"f16/GQA8/page16runs", DType::kF16, 8, 16, Pages::kRuns, false},
    {"bf16/MHA/page16runs", DType::kBF16, 1, 16, Pages::kRuns, false},
    {"bf16/GQA4/page16runs", DType::kBF16, 4, 16, Pages::kRuns, false},
    {"int8/MHA/page16runs", DType::kI8, 1, 16, Pages::kRuns, false},
    {"int8/MHA/page64", DType::kI8, 1, 64, Pages::kScattered, false},
    {"int8/GQA4/page16runs", DType::kI8, 4, 16, Pages::kRuns, false},
    {"int8/GQA4/page64", DType::kI8, 4, 64, Pages::kScattered, false},
    {"fp8/MHA/page16runs", DType::kF8E4M3, 1, 16, Pages::kRuns, false},
    {"fp8/MHA/page64", DType::kF8E4M3, 1, 64, Pages::kScattered, false},
    {"fp8/GQA4/page16runs", DType::kF8E4M3, 4, 16, Pages::kRuns, false},
    {"fp8/GQA4/page64", DType::kF8E4M3, 4, 64, Pages::kScattered, false},
};

// Streams whose slots together take kBytes.
class Streams {
 public:
  Streams(const Case& c, Rng& rng) : pool_({c.page_slots, kHeadDim, c.type}, 0), group_(c.group) {
    constexpr int kStreams = 32;
    const int64_t page_bytes = pool_.page_bytes();
    std::vector<double> shares;
    for (int i = 0; i < kStreams; ++i) {
      shares.push_back(c.ragged ? std::exp2(-3.0 * rng.uniform()) : 1.0);
    }
    const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
    std::vector<std::pair<int, int32_t>> all;  // stream, page
    for (int i = 0; i < kStreams; ++i) {
      const auto pages = static_cast<int64_t>(static_cast<double>(kBytes / page_bytes) *
                                              shares[static_cast<size_t>(i)] / total);
      int32_t page = -1;
      for (int64_t n = 0; n < pages; ++n) all.emplace_back(i, page = pool_.take(page));
    }
    if (c.pages == Pages::kScattered) {
      for (size_t i = all.size(); i > 1; --i) {
        std::swap(all[i - 1].second, all[static_cast<size_t>(rng.below(i))].second);
      }
    }
    tables_.resize(kStreams);
    for (const auto& [stream, page] : all) tables_[static_cast<size_t>(stream)].push_back(page);
    fill(rng);
    numbers_.resize(static_cast<size_t>(kHeadDim * (2 + kStreams * group_ * 2)));
    for (float& x : numbers_) x = static_cast<float>(rng.uniform() - 0.5);
    const float* q = numbers_.data() + 2 * kHeadDim;
    float* out = numbers_.data() + kHeadDim * (2 + kStreams * group_);
    for (const auto& table : tables_) {
      const auto slots = static_cast<int64_t>(table.size()) * c.page_slots;
      slots_ += slots;
      items_.push_back({table.data(), slots, numbers_.data(), numbers_.data() + kHeadDim, q, out});
      q += group_ * kHeadDim;
      out += group_ * kHeadDim;
    }
  }

  void attend() { kernels::decode_attention(pool_.view(), items_, group_, 0.088f); }
  int64_t slots() const { return slots_; }
  int64_t bytes() const { return pool_.pages_in_use() * pool_.page_bytes(); }

 private:
  // A few random slots, copied everywhere: only their number matters here.
  void fill(Rng& rng) {
    const kernels::PoolView view = pool_.view();
    std::vector<float> row(2 * kHeadDim);
    for (int slot = 0; slot < view.format.page_slots; ++slot) {
      for (float& x : row) x = static_cast<float>(rng.uniform() - 0.5);
      kernels::write_slot(view, 0, slot, row.data(), row.data() + kHeadDim);
    }
    for (int64_t page = 1; page < pool_.pages_total(); ++page) {
      std::memcpy(view.pages[page], view.pages[0], static_cast<size_t>(view.format.bytes()));
    }
  }

  cache::PagePool pool_;
  int group_;
  int64_t slots_ = 0;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<float> numbers_;
  std::vector<kernels::DecodeItem> items_;
};

void decode(benchmark::State& state, const Case& c) {
  Rng rng(1);
  Streams streams(c, rng);
  run_beside(state, read_bandwidth, static_cast<double>(streams.bytes()), "of_R",
             [&] { streams.attend(); });
  const auto rounds = static_cast<double>(state.iterations());
  using Counter = benchmark::Counter;
  state.counters["GB/s"] =
      Counter(static_cast<double>(streams.bytes()) * 1e-9 * rounds, Counter::kIsRate);
  state.counters["Mslots/s"] =
      Counter(static_cast<double>(streams.slots()) * 1e-6 * rounds, Counter::kIsRate);
}

// One thread's work on slots that stay in its L2 cache: what is left where memory is no limit.
void decode_cached(benchmark::State& state, DType type, int group) {
  Rng rng(1);
  cache::PagePool pool({16, kHeadDim, type}, 0);
  std::vector<int32_t> pages;
  std::vector<float> pair(2 * kHeadDim);
  for (int64_t slot = 0; slot < kCachedSlots; ++slot) {
    if (slot % 16 == 0) pages.push_back(pool.take());
    for (float& x : pair) x = static_cast<float>(rng.uniform() - 0.5);
    kernels::write_slot(pool.view(), pages.back(), slot % 16, pair.data(), pair.data() + kHeadDim);
  }
  const auto queries = static_cast<size_t>(group);
  std::vector<float> q(queries * kHeadDim, 0.1f), out(q.size());
  for (auto _ : state) {
    std::vector<kernels::AttnState> states(queries, {-1e30f, 0.0f});
    kernels::backend().attend_slots(pool.view(), {pages.data(), 0, kCachedSlots}, q.data(), group,
                                    0.088f, states.data(), out.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ns/slot"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kCachedSlots) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

const bool registered = [] {
  for (DType type : {DType::kBF16, DType::kF16, DType::kI8, DType::kF8E4M3}) {
    for (int group : {1, 4}) {
      benchmark::RegisterBenchmark(
          ("cached/" + std::string(dtype_name(type)) + "/" + std::to_string(group)).c_str(),
          [=](benchmark::State& state) { decode_cached(state, type, group); });
    }
  }
  for (const Case& c : kCases) {
    benchmark::RegisterBenchmark(("decode/" + std::string(c.name)).c_str(),
                                 [&c](benchmark::State& state) { decode(state, c); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace dmc::bench

#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <span>

#include "base/parallel.h"
#include "base/stopwatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "machine.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dmc::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
constexpr int kChains = 8;  // independent sums: enough to hide an addition's latency

float Sum(const float* from, int64_t count) {
  const Tag tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  hn::Vec<Tag> sums[kChains];
  for (auto& sum : sums) sum = hn::Zero(tag);
  for (int64_t i = 0; i + kChains * lanes <= count; i += kChains * lanes) {
    for (int c = 0; c < kChains; ++c) {
      sums[c] = hn::Add(sums[c], hn::LoadU(tag, from + i + c * lanes));
    }
  }
  for (int c = 1; c < kChains; ++c) sums[0] = hn::Add(sums[0], sums[c]);
  return hn::GetLane(hn::SumOfLanes(tag, sums[0]));
}

// Returns the operations done; `sink` keeps the compiler from leaving them out.
int64_t MultiplyAdd(int64_t rounds, float* sink) {
  const Tag tag;
  constexpr int kWide = 12;
  hn::Vec<Tag> sums[kWide];
  for (auto& sum : sums) sum = hn::Zero(tag);
  const auto factor = hn::Set(tag, *sink);
  for (int64_t i = 0; i < rounds; ++i) {
    for (auto& sum : sums) sum = hn::MulAdd(factor, sum, factor);
  }
  for (int c = 1; c < kWide; ++c) sums[0] = hn::Add(sums[0], sums[c]);
  *sink = hn::GetLane(hn::SumOfLanes(tag, sums[0]));
  return 2 * kWide * static_cast<int64_t>(hn::Lanes(tag)) * rounds;
}

}  // namespace dmc::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::bench {
namespace {

HWY_EXPORT(Sum);
HWY_EXPORT(MultiplyAdd);

}  // namespace

double read_bandwidth() {
  constexpr int64_t kFloats = int64_t{64} << 20;  // 256 MB: past any cache
  constexpr int64_t kPiece = int64_t{1} << 16;
  static const std::span<float> memory = [] {  // as well placed as what is compared with it
    constexpr size_t kHugePage = size_t{2} << 20;
    auto* const data = static_cast<float*>(std::aligned_alloc(kHugePage, kFloats * sizeof(float)));
    madvise(data, kFloats * sizeof(float), MADV_HUGEPAGE);
    std::fill_n(data, kFloats, 1.0f);
    return std::span(data, kFloats);
  }();
  std::atomic<float> sink = 0.0f;
  const Stopwatch watch;
  parallel_for(0, kFloats / kPiece, 8, [&](int64_t first, int64_t last) {
    sink = HWY_DYNAMIC_DISPATCH(Sum)(memory.data() + first * kPiece, (last - first) * kPiece);
  });
  return static_cast<double>(kFloats * sizeof(float)) / watch.seconds();
}

double fma_peak() {
  constexpr int64_t kRounds = 200'000;
  const int64_t pieces = 16 * num_threads();
  std::atomic<int64_t> operations = 0;
  const Stopwatch watch;
  parallel_for(0, pieces, 1, [&](int64_t, int64_t) {
    float sink = 0.5f;
    operations += HWY_DYNAMIC_DISPATCH(MultiplyAdd)(kRounds, &sink);
  });
  return static_cast<double>(operations) / watch.seconds();
}

}  // namespace dmc::bench
#endif

// Eviction on a GPU against the same on the CPU (HostDevice), for every slot type. Without a GPU it
// is skipped.
#include <gtest/gtest.h>

#include "decode_step.h"
#include "device_copy.h"
#include "gpu_testing.h"
#include "kernels/cuda/model_launches.h"
#include "runtime/device/host_device.h"

namespace dmc::kernels::cuda {
namespace {

using policy::SlotStats;

// The statistics of streams in the middle of decoding: no two slots have seen the same.
std::vector<SlotStats> random_stats(const Streams& streams, size_t count, int page_slots,
                                    Rng& rng) {
  const auto capacity = static_cast<size_t>(streams.stats_capacity(page_slots));
  std::vector<SlotStats> stats(count * capacity);
  for (size_t i = 0; i < stats.size(); ++i) {
    stats[i] = {static_cast<int64_t>(i % capacity), 0.0f, rng.uniform()};
  }
  return stats;
}

// One layer's eviction on both sides; what is left must be the same to the byte, and the attention
// nearly so.
void expect_same_eviction(const Case& c, const EvictionSpec& spec, uint64_t seed) {
  SCOPED_TRACE(c.text() + " seed=" + std::to_string(seed));
  Rng rng(seed);
  Step step(c, rng);
  const size_t streams = step.cache.closed.size();
  std::vector<SlotStats> stats = random_stats(step.cache.streams, streams, c.page_slots, rng);
  step.positions.assign(step.positions.size(), 300);
  DeviceCopy device(step.cache);
  const DeviceArray<SlotStats> device_stats(stats);
  step.cache.streams.stats = stats.data();
  device.streams.stats = device_stats.get();
  const DeviceArray<int32_t> rows(step.rows), positions(step.positions);
  const DeviceArray<float> q(step.q);
  const Batch batch = step.batch(step.rows.data());
  const auto capacity = step.cache.streams.stats_capacity(c.page_slots);
  DeviceArray<float> scores(static_cast<size_t>(batch.items() * capacity));
  const DecodeShape shape{c.type, c.head_dim, c.group};
  constexpr float kScale = 0.3f;
  evict_slots(shape, {device.pool, device.stack, device.streams}, step.batch(rows.get()), 1,
              {spec, q.get(), kScale, positions.get(), scores.get()}, nullptr);
  check(cudaDeviceSynchronize(), "evicting");

  std::vector<float> host_scores(static_cast<size_t>(capacity));
  runtime::HostDevice().evict_slots(
      shape, {step.cache.pool, step.cache.stack, step.cache.streams}, batch, 1,
      {spec, step.q.data(), kScale, step.positions.data(), host_scores.data()});
  EXPECT_EQ(device.closed.download(), step.cache.closed);
  EXPECT_EQ(device.memory.download(), step.cache.memory);
  EXPECT_EQ(device.refused.download()[0], 0);
  const std::vector<SlotStats> got = device_stats.download();
  for (size_t i = 0; i < stats.size(); ++i) {
    ASSERT_EQ(got[i].position, stats[i].position) << "slot " << i;
    ASSERT_NEAR(got[i].attention, stats[i].attention, 1e-5);
    ASSERT_NEAR(got[i].total, stats[i].total, 1e-5);
  }
}

TEST(CudaEviction, AgreesWithTheCpuOnTheGrid) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 40;
  for (const auto& [type, head_dim] : compiled_kernels()) {
    const Case c{type, head_dim, 16, 4, 3, 3, 90};
    expect_same_eviction(c, {policy::Eviction::kOutsideWindow, {25}}, seed++);
    expect_same_eviction(c, {policy::Eviction::kLightest, {40}}, seed++);
    expect_same_eviction({type, head_dim, 32, 7, 1, 2, 200}, {policy::Eviction::kLightest, {2}},
                         seed++);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda

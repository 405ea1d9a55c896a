// The decode kernels on a GPU against the same steps on the CPU. Without a GPU they are skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decode_step.h"
#include "device_copy.h"
#include "gpu_testing.h"

namespace dmc::kernels::cuda {
namespace {

void expect_same_step(const Case& c, uint64_t seed) {
  SCOPED_TRACE(c.text() + " seed=" + std::to_string(seed));
  Rng rng(seed);
  Step step(c, rng);
  const DecodeShape shape{c.type, c.head_dim, c.group};
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  DeviceCopy device(step.cache);
  const DeviceArray<int32_t> rows(step.rows), positions(step.positions);
  const DeviceArray<float> q(step.q), k(step.k), v(step.v), importance(step.importance),
      cos(step.cos), sin(step.sin);
  const DeviceArray<uint8_t> merge(step.merge);
  const Batch batch = step.batch(rows.get());
  DecodeWorkspace workspace{nullptr,    kLayers, batch.items(), decode_workers(shape),
                            c.head_dim, c.group};
  DeviceArray<std::byte> memory(static_cast<size_t>(workspace.bytes()));
  memory.zero();
  workspace.memory = memory.get();

  plan_decode(device.streams, batch, workspace, nullptr);
  for (int layer = 0; layer < kLayers; ++layer) {
    take_tokens(shape, device.pool, device.stack, device.streams, batch, layer,
                {k.get(), v.get(), merge.get(), importance.get(), positions.get()},
                {cos.get(), sin.get()}, nullptr);
    std::vector<float> results[2];
    for (std::vector<float>& result : results) {
      DeviceArray<float> out(step.q.size());
      decode_attention(shape, device.pool, device.streams, batch, layer, q.get(), scale, out.get(),
                       workspace, nullptr);
      check(cudaDeviceSynchronize(), "running a decode step");
      result = out.download();
    }
    const std::vector<float> expected = step.run_on_host(layer, scale);
    EXPECT_LE(relative_error(results[0], expected), allowed_error(c.type));
    EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)),
              0)
        << "other bits the second time";
  }
  EXPECT_EQ(device.closed.download(), step.cache.closed);
  EXPECT_EQ(device.counts.download(), step.cache.counts);
  EXPECT_EQ(device.left.download()[0], step.cache.left);
  EXPECT_EQ(device.refused.download()[0], 0);
}

TEST(CudaDecode, AgreesWithRefOnTheGrid) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 1;
  for (const auto& [type, head_dim] : compiled_kernels()) {
    for (int page_slots : {16, 64}) {
      for (int group : {1, 4, 7, 8}) {
        expect_same_step({type, head_dim, page_slots, group, 3, 4, 200}, seed++);
        if (HasFatalFailure()) return;
      }
    }
    expect_same_step({type, head_dim, 16, 4, 2, 1, 5000}, seed++);    // few and long
    expect_same_step({type, head_dim, 16, 1, 8, 64, 60}, seed++);     // many and short
    expect_same_step({type, head_dim, 32, 2, 2, 3, 100, 0}, seed++);  // running mean
    expect_same_step({type, head_dim, 16, 8, 1, 1, 0}, seed++);       // an open slot alone
  }
}

// Pages come back, all of them, each once.
TEST(CudaDecode, ReleasedPagesAreFreeAgain) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  Rng rng(9);
  Step step({DType::kBF16, 64, 16, 1, 4, 8, 300}, rng);
  step.rows = {0, 1, 2, 3, 4, 5, 6, 7};
  DeviceCopy device(step.cache);
  const DeviceArray<int32_t> rows(step.rows);
  const int32_t last_row = 8;
  const DeviceArray<int32_t> last(std::vector<int32_t>{last_row});
  release_rows(device.pool, device.stack, device.streams, step.batch(rows.get()), kLayers, nullptr);
  release_rows(device.pool, device.stack, device.streams,
               {last.get(), 1, step.c.kv_heads, step.cache_rows}, kLayers, nullptr);
  collect_pages(device.stack, nullptr);
  check(cudaDeviceSynchronize(), "releasing");
  std::vector<int32_t> free = device.free.download();
  EXPECT_EQ(device.waiting.download()[0], 0);
  ASSERT_EQ(device.left.download()[0], static_cast<int32_t>(free.size()));
  std::sort(free.begin(), free.end());
  for (size_t i = 0; i < free.size(); ++i) ASSERT_EQ(free[i], static_cast<int32_t>(i));
}

}  // namespace
}  // namespace dmc::kernels::cuda

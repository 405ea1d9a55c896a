// A whole sequence on a GPU against the cache of the CPU: a prompt in chunks, then decoding.
// Without a GPU it is skipped.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "cache/kv_cache.h"
#include "decode_step.h"
#include "device_copy.h"
#include "gpu_testing.h"
#include "kernels/cuda/attention/prefill.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kHeads = 3;

struct Tokens {
  std::vector<float> q, k, v, importance;
  std::vector<uint8_t> merge;
  std::vector<policy::Decision> decisions;  // the same

  Tokens(int count, int group, int head_dim, Rng& rng) {
    const auto rows = static_cast<size_t>(count * kHeads), d = static_cast<size_t>(head_dim);
    q = random_numbers(rows * static_cast<size_t>(group) * d, rng);
    k = random_numbers(rows * d, rng);
    v = random_numbers(rows * d, rng);
    for (size_t i = 0; i < rows; ++i) {
      importance.push_back(static_cast<float>(0.1 + rng.uniform()));
      merge.push_back(rng.uniform() < 0.45 * static_cast<double>(i % kHeads));
      decisions.push_back(merge.back() != 0 ? policy::Decision::kMerge : policy::Decision::kAppend);
    }
  }
};

void expect_same_sequence(DType type, int head_dim, int group, int window,
                          const std::vector<int>& chunks, int decoded, uint64_t seed) {
  SCOPED_TRACE(std::string(dtype_name(type)) + " d=" + std::to_string(head_dim) +
               " group=" + std::to_string(group) + " window=" + std::to_string(window) +
               " seed=" + std::to_string(seed));
  Rng rng(seed);
  int total = decoded;
  for (int tokens : chunks) total += tokens;
  const RopeTable rope(total, head_dim, 10000.0);
  cache::KvCache expected({.layers = 1,
                           .kv_heads = kHeads,
                           .query_heads = kHeads * group,
                           .head_dim = head_dim,
                           .window = window,
                           .slot_type = type,
                           .rope = &rope});
  const cache::SequenceId id = expected.add_sequence();
  const int max_pages = total / 16 + 1;
  const HostCache empty({16, head_dim, type}, kHeads * max_pages, kHeads, max_pages, window);
  DeviceCopy device(empty);
  const DeviceArray<float> cos(rope.cos), sin(rope.sin);
  const DeviceArray<int32_t> rows(std::vector<int32_t>{0});
  const Batch batch{rows.get(), 1, kHeads, 1};
  const DecodeShape shape{type, head_dim, group};
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  DecodeWorkspace workspace{nullptr, 1, kHeads, decode_workers(shape), head_dim, group};
  DeviceArray<std::byte> memory(static_cast<size_t>(workspace.bytes()));
  memory.zero();
  workspace.memory = memory.get();

  int position = 0;
  const auto compare = [&](const std::vector<float>& out, const std::vector<float>& wanted) {
    EXPECT_LE(relative_error(out, wanted), allowed_error(type)) << "at position " << position;
    const std::vector<int32_t> closed = device.closed.download();
    for (int head = 0; head < kHeads; ++head) {
      EXPECT_EQ(closed[static_cast<size_t>(head)] + 1, expected.slots(id, 0, head));
    }
  };
  for (int tokens : chunks) {
    const Tokens of(tokens, group, head_dim, rng);
    std::vector<float> wanted(of.q.size());
    expected.prefill(id, 0,
                     {tokens, of.q.data(), of.k.data(), of.v.data(), of.decisions.data(),
                      of.importance.data(), wanted.data()});
    const DeviceArray<float> q(of.q), k(of.k), v(of.v), importance(of.importance);
    const DeviceArray<uint8_t> merge(of.merge);
    DeviceArray<float> own_key(of.k.size()), own_value(of.k.size()), out(of.q.size());
    DeviceArray<int32_t> visible(of.merge.size());
    std::vector<int32_t> in_order(static_cast<size_t>(tokens));
    std::iota(in_order.begin(), in_order.end(), position);
    const DeviceArray<int32_t> positions(in_order);
    const PromptChunk chunk{tokens,        kHeads,           head_dim,     0,
                            rows.get(),    positions.get(),  k.get(),      v.get(),
                            merge.get(),   importance.get(), cos.get(),    sin.get(),
                            own_key.get(), own_value.get(),  visible.get()};
    take_prompt(shape, device.pool, device.stack, device.streams, chunk, nullptr);
    prefill_attention(shape, device.pool, device.streams, chunk, q.get(), scale, out.get(),
                      nullptr);
    check(cudaDeviceSynchronize(), "running a prefill");
    expected.advance(id, tokens);
    position += tokens;
    compare(out.download(), wanted);
  }
  for (int step = 0; step < decoded; ++step, ++position) {
    const Tokens of(1, group, head_dim, rng);
    std::vector<float> wanted(of.q.size());
    expected.decode(std::span(&id, 1), 0,
                    {1, of.q.data(), of.k.data(), of.v.data(), of.decisions.data(),
                     of.importance.data(), wanted.data()});
    const DeviceArray<float> q(of.q), k(of.k), v(of.v), importance(of.importance);
    const DeviceArray<uint8_t> merge(of.merge);
    const DeviceArray<int32_t> positions(std::vector<int32_t>{position});
    DeviceArray<float> out(of.q.size());
    plan_decode(device.streams, batch, workspace, nullptr);
    take_tokens(shape, device.pool, device.stack, device.streams, batch, 0,
                {k.get(), v.get(), merge.get(), importance.get(), positions.get()},
                {cos.get(), sin.get()}, nullptr);
    decode_attention(shape, device.pool, device.streams, batch, 0, q.get(), scale, out.get(),
                     workspace, nullptr);
    check(cudaDeviceSynchronize(), "running a decode step");
    expected.advance(id, 1);
    compare(out.download(), wanted);
  }
  EXPECT_EQ(device.refused.download()[0], 0);
}

TEST(CudaSequence, PrefillAndDecodingAgreeWithTheCacheOfTheCpu) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 1;
  for (const auto& [type, head_dim] : compiled_kernels()) {
    expect_same_sequence(type, head_dim, 4, 12, {300, 1, 47}, 20, seed++);
    expect_same_sequence(type, head_dim, 1, 0, {1, 16, 130}, 20, seed++);
    expect_same_sequence(type, head_dim, 7, 3, {40}, 20, seed++);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda

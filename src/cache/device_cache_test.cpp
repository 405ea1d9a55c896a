// The device's cache, tables and all, run on the CPU against KvCache: the same tokens must give the
// same slots and the same attention, step after step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "cache/kv_cache.h"
#include "kernels/cuda/attention/host_decode.h"
#include "kernels/cuda/attention/prompt.h"
#include "kernels/cuda/cache/host_cache.h"
#include "kernels/cuda/cache/take_token.h"
#include "kernels/cuda/lanes/team.h"

namespace dmc::cache {
namespace {

namespace gpu = kernels::cuda;

struct Scenario {
  DType type;
  int kv_heads, group, page_slots, window, sequences, steps;
  double merge_share;
  uint64_t seed;
};

constexpr int kDim = 64, kLayers = 2;

// One step's random tokens of a layer.
struct Tokens {
  std::vector<float> q, k, v, importance;
  std::vector<uint8_t> merge;
  std::vector<policy::Decision> decisions;  // the same

  Tokens(const Scenario& s, Rng& rng) {
    const auto streams = static_cast<size_t>(s.sequences * s.kv_heads);
    const auto fill = [&](std::vector<float>& to, size_t count) {
      to.resize(count);
      for (float& x : to) x = static_cast<float>(2.0 * rng.uniform() - 1.0);
    };
    fill(q, streams * static_cast<size_t>(s.group) * kDim);
    fill(k, streams * kDim);
    fill(v, streams * kDim);
    for (size_t i = 0; i < streams; ++i) {
      importance.push_back(static_cast<float>(0.1 + rng.uniform()));
      // Streams differ: the more so, the less even their lengths.
      merge.push_back(rng.uniform() < s.merge_share * static_cast<double>(i % 3) / 2.0);
      decisions.push_back(merge.back() != 0 ? policy::Decision::kMerge : policy::Decision::kAppend);
    }
  }
};

template <DType kType>
void expect_same(const Scenario& s) {
  SCOPED_TRACE(std::string(dtype_name(kType)) + " seed " + std::to_string(s.seed));
  Rng rng(s.seed);
  const kernels::RopeTable rope(s.steps, kDim, 10000.0);
  KvCache cache({.layers = kLayers,
                 .kv_heads = s.kv_heads,
                 .query_heads = s.kv_heads * s.group,
                 .head_dim = kDim,
                 .window = s.window,
                 .page_slots = s.page_slots,
                 .slot_type = kType,
                 .rope = &rope});
  std::vector<SequenceId> ids;
  for (int i = 0; i < s.sequences; ++i) ids.push_back(cache.add_sequence());

  const int cache_rows = s.sequences + 2;  // sequences sit in the last rows
  const int64_t streams = int64_t{kLayers} * cache_rows * s.kv_heads;
  const int64_t max_pages = s.steps / s.page_slots + 1;
  gpu::HostCache device({s.page_slots, kDim, kType}, streams * max_pages, streams, max_pages,
                        s.window);
  std::vector<int32_t> rows(static_cast<size_t>(s.sequences));
  std::iota(rows.rbegin(), rows.rend(), 2);
  const gpu::Batch batch{rows.data(), s.sequences, s.kv_heads, cache_rows};
  const float scale = 1.0f / std::sqrt(static_cast<float>(kDim));
  constexpr int kWorkers = 7;
  std::vector<int> order(kWorkers);
  std::iota(order.begin(), order.end(), 0);

  for (int step = 0; step < s.steps; ++step) {
    for (int layer = 0; layer < kLayers; ++layer) {
      const Tokens tokens(s, rng);
      std::vector<float> expected(tokens.q.size()), out(tokens.q.size(), std::nanf(""));
      cache.decode(ids, layer,
                   {s.sequences, tokens.q.data(), tokens.k.data(), tokens.v.data(),
                    tokens.decisions.data(), tokens.importance.data(), expected.data()});
      gpu::HostDecode<kType, kDim> attention(device.pool, device.streams, batch, layer, s.group,
                                             scale, kWorkers);
      for (int item = 0; item < batch.items(); ++item) {
        const auto i = static_cast<size_t>(item);
        gpu::take_token<kType, gpu::SoloTeam>(
            device.pool, device.stack, device.streams, batch.stream(layer, item), kDim,
            {&tokens.k[i * kDim], &tokens.v[i * kDim], tokens.importance[i], tokens.merge[i] != 0,
             rope.cos_at(step), rope.sin_at(step)});
      }
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
      attention.attend(tokens.q.data(), out.data(), order);

      // Weights and queries are rounded to the slots' type on the device, on the CPU they are f32.
      const double allowed = kType == DType::kF32 ? 1e-5 : kType == DType::kBF16 ? 0.02 : 0.003;
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], expected[i], allowed) << "step " << step << ", number " << i;
      }
      for (int item = 0; item < batch.items(); ++item) {
        const int32_t closed = device.closed[static_cast<size_t>(batch.stream(layer, item))];
        ASSERT_EQ(closed + 1, cache.slots(ids[static_cast<size_t>(item / s.kv_heads)], layer,
                                          item % s.kv_heads));
      }
    }
    for (SequenceId id : ids) cache.advance(id, 1);
  }

  // Every page comes back, each once.
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int item = 0; item < batch.items(); ++item) {
      gpu::release_stream<gpu::SoloTeam>(device.pool, device.stack, device.streams,
                                         batch.stream(layer, item));
    }
  }
  gpu::collect_pages<gpu::SoloTeam>(device.stack);
  EXPECT_EQ(device.refused, 0);
  ASSERT_EQ(device.left, static_cast<int32_t>(device.free.size()));
  std::ranges::sort(device.free);
  for (size_t i = 0; i < device.free.size(); ++i) {
    ASSERT_EQ(device.free[i], static_cast<int32_t>(i));
  }
}

TEST(DeviceCache, DecodingGivesWhatTheCacheOfTheCpuGives) {
  expect_same<DType::kF32>({DType::kF32, 3, 2, 16, 12, 3, 150, 0.8, 1});
  expect_same<DType::kF32>({DType::kF32, 2, 8, 32, 0, 2, 120, 0.9, 2});  // no window
  expect_same<DType::kBF16>({DType::kBF16, 3, 4, 16, 12, 2, 150, 0.8, 3});
  expect_same<DType::kF16>({DType::kF16, 3, 1, 16, 1, 3, 100, 0.5, 4});  // newest token only
  expect_same<DType::kI8>({DType::kI8, 3, 4, 64, 4, 2, 150, 0.7, 5});
  expect_same<DType::kF8E4M3>({DType::kF8E4M3, 3, 4, 64, 4, 2, 150, 0.7, 5});
  expect_same<DType::kF32>({DType::kF32, 1, 1, 16, 12, 1, 300, 0.0, 6});  // dense
}

// A chunk of a prompt as the kernels of prefill.cu take it in, one token and head after another.
void take_chunk(gpu::HostCache& device, const gpu::PromptChunk& chunk) {
  for (int t = 0; t < chunk.tokens; ++t) {
    for (int head = 0; head < chunk.kv_heads; ++head) {
      gpu::pool_prompt_token<gpu::SoloTeam>(device.streams, chunk, t, head);
    }
  }
  for (int head = 0; head < chunk.kv_heads; ++head) {
    const int64_t stream = chunk.stream(head);
    const int32_t before = device.streams.closed[stream];
    int closing = 0;
    for (int t = 0; t < chunk.tokens; ++t) {
      closing += chunk.closes(device.streams, t, head) ? 1 : 0;
      chunk.visible[chunk.row(t, head)] = before + closing;
    }
    ASSERT_TRUE(gpu::reserve_pages<gpu::SoloTeam>(device.pool, device.stack, device.streams, stream,
                                                  closing));
  }
  for (int t = 0; t < chunk.tokens; ++t) {
    for (int head = 0; head < chunk.kv_heads; ++head) {
      gpu::write_closed<DType::kF32, gpu::SoloTeam>(device.pool, device.streams, chunk, t, head);
    }
  }
  for (int head = 0; head < chunk.kv_heads; ++head) {
    gpu::finish_prompt<gpu::SoloTeam>(device.streams, chunk, head);
  }
}

void expect_same_prompt(int window, std::vector<int> chunks, uint64_t seed) {
  SCOPED_TRACE("window " + std::to_string(window) + " seed " + std::to_string(seed));
  Rng rng(seed);
  constexpr int kHeads = 3;
  const int total = std::accumulate(chunks.begin(), chunks.end(), 0);
  const kernels::RopeTable rope(total, kDim, 10000.0);
  KvCache cache({.layers = 1,
                 .kv_heads = kHeads,
                 .query_heads = kHeads,
                 .head_dim = kDim,
                 .window = window,
                 .rope = &rope});
  const SequenceId id = cache.add_sequence();
  gpu::HostCache device({16, kDim, DType::kF32}, 100, kHeads, 30, window);
  int position = 0;
  for (int tokens : chunks) {
    // The merging and the streams of Tokens, with tokens in the place of sequences.
    const Tokens of({DType::kF32, kHeads, 1, 16, window, tokens, 0, 0.9, 0}, rng);
    std::vector<float> out(of.q.size()), own_key(of.k.size()), own_value(of.k.size());
    cache.prefill(id, 0,
                  {tokens, of.q.data(), of.k.data(), of.v.data(), of.decisions.data(),
                   of.importance.data(), out.data()});
    cache.advance(id, tokens);
    std::vector<int32_t> visible(of.merge.size());
    const int32_t row = 0;
    std::vector<int32_t> positions(static_cast<size_t>(tokens));
    std::iota(positions.begin(), positions.end(), position);
    take_chunk(device, {tokens, kHeads, kDim, 0, &row, positions.data(), of.k.data(), of.v.data(),
                        of.merge.data(), of.importance.data(), rope.cos_at(0), rope.sin_at(0),
                        own_key.data(), own_value.data(), visible.data()});
    position += tokens;
    std::vector<float> key(kDim), value(kDim), device_key(kDim), device_value(kDim);
    const auto expect_pair = [&](const float* device_pair_key, const float* device_pair_value) {
      for (size_t i = 0; i < kDim; ++i) {
        ASSERT_NEAR(device_pair_key[i], key[i], 1e-5);
        ASSERT_NEAR(device_pair_value[i], value[i], 1e-5);
      }
    };
    for (int head = 0; head < kHeads; ++head) {
      const int32_t closed = device.closed[static_cast<size_t>(head)];
      ASSERT_EQ(closed + 1, cache.slots(id, 0, head));
      for (int32_t slot = 0; slot < closed; ++slot) {
        cache.read_slot(id, 0, head, slot, key, value);
        std::byte* const page =
            device.pool.memory + device.streams.table(head)[slot / 16] * device.pool.page_bytes;
        kernels::read_slot({&page, {16, kDim, DType::kF32}}, 0, slot % 16, device_key.data(),
                           device_value.data());
        expect_pair(device_key.data(), device_value.data());
      }
      cache.read_slot(id, 0, head, closed, key, value);
      expect_pair(device.streams.open_key(head, kDim), device.streams.open_value(head, kDim));
      EXPECT_EQ(visible[visible.size() - kHeads + static_cast<size_t>(head)], closed);
    }
  }
}

TEST(DeviceCache, APromptInChunksGivesWhatTheCacheOfTheCpuGives) {
  uint64_t seed = 20;
  for (int window : {12, 0, 1, 3}) {
    expect_same_prompt(window, {100}, seed++);
    expect_same_prompt(window, {1, 1, 2, 30, 5, 64}, seed++);
    expect_same_prompt(window, {7, 3, 3, 3, 3, 3, 90}, seed++);
  }
}

TEST(DeviceCache, WithoutAFreePageASlotIsRefusedAndCounted) {
  constexpr kernels::PageFormat kFormat{16, kDim, DType::kBF16};
  gpu::HostCache device(kFormat, 1, 2, 8, 12);  // one page for two streams
  const std::vector<float> ones(kDim, 1.0f);
  for (int token = 0; token < 20; ++token) {
    for (int64_t stream = 0; stream < 2; ++stream) {
      gpu::take_token<DType::kBF16, gpu::SoloTeam>(
          device.pool, device.stack, device.streams, stream, kDim,
          {ones.data(), ones.data(), 1.0f, false, nullptr, nullptr});
    }
  }
  EXPECT_EQ(device.closed, (std::vector<int32_t>{16, 0}));
  EXPECT_EQ(device.refused, (19 - 16) + 19);
  EXPECT_EQ(device.left, 0);
}

}  // namespace
}  // namespace dmc::cache

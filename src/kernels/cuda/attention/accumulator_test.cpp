// The tensor-core attention of a warp, run on an emulated warp against `ref`.
#include "kernels/cuda/attention/accumulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/lanes/host_warp.h"
#include "kernels/kernel_testing.h"
#include "kernels/ref/attention_ref.h"

namespace dmc::kernels::cuda {
namespace {

// Half a unit in the last place of what slots, queries and weights are rounded to.
double rounding(DType type) {
  switch (type) {
    case DType::kF32:
      return std::exp2(-22);
    case DType::kBF16:
      return std::exp2(-8);
    default:
      return std::exp2(-11);
  }
}

// One page of random slots, read as a device reads it.
struct RandomPage {
  std::vector<float> memory;
  std::byte* page;
  PoolView host;
  PagePool device;

  RandomPage(const PageFormat& format, float value_size, Rng& rng)
      : memory(random_floats(static_cast<size_t>(format.bytes()) / sizeof(float), rng)),
        page(reinterpret_cast<std::byte*>(memory.data())),
        host{&page, format},
        device{page, format.bytes(), format.page_slots} {
    std::fill(memory.begin(), memory.end(), std::nanf(""));  // what is not written is not read
    for (int slot = 0; slot < format.page_slots; ++slot) {
      const auto key = random_floats(static_cast<size_t>(format.head_dim), rng);
      auto value = random_floats(static_cast<size_t>(format.head_dim), rng);
      for (float& x : value) x *= value_size * (1.0f + static_cast<float>(slot % 5));
      write_slot(host, 0, slot, key.data(), value.data());
    }
  }
};

template <DType kType, int kDim, int kGroups>
void expect_ref(int page_slots, float value_size, uint64_t seed) {
  SCOPED_TRACE(std::string(dtype_name(kType)) + " d=" + std::to_string(kDim) +
               " groups=" + std::to_string(kGroups) + " seed=" + std::to_string(seed));
  Rng rng(seed);
  constexpr float kScale = 0.2f;
  constexpr int kQueries = 8 * kGroups;
  const RandomPage page({page_slots, kDim, kType}, value_size, rng);
  const auto q = random_floats(size_t{kQueries} * kDim, rng);
  const auto own = random_floats(kDim, rng);
  std::vector<int64_t> visible(kQueries);
  for (int64_t& slots : visible) slots = static_cast<int64_t>(rng.below(page_slots + 1));
  visible[0] = page_slots;

  // Every other query starts from a pair of its own; the last one does not exist.
  const auto starts = [](int query) { return query % 2 == 0; };
  std::vector<AttnState> states(kQueries, {kFloorScore, 0.0f});
  std::vector<float> expected(q.size(), 0.0f);
  for (int n = 0; n < kQueries; n += 2) {
    states[static_cast<size_t>(n)] = {0.3f, 1.0f};
    std::copy_n(own.data(), kDim, &expected[static_cast<size_t>(n) * kDim]);
  }
  const int32_t first = 0;
  const std::vector<int32_t> table(8, first);
  ref::attend_rows(page.host, {table.data(), 0, page_slots}, q.data(), kQueries, visible.data(),
                   kScale, states.data(), expected.data());

  Accumulator<HostWarp, kType, kDim, kGroups> warp;
  warp.set_queries([&](int n) { return n == kQueries - 1 ? nullptr : &q[size_t(n) * kDim]; });
  warp.start([&](int n) { return starts(n) ? 0.3f * kLog2e : kFloorScore; },
             [&](int n) { return starts(n) ? own.data() : nullptr; });
  for (int slot = 0; slot < page_slots; slot += kTileSlots) {
    const auto rows = tile_rows<kType, kDim>(page.device, 0, slot, kTileSlots);
    TileStage<kType, kDim> stage;
    HostWarp::each([&](int lane) {
      copy_keys<HostWarp>(rows, lane, stage);
      copy_values<HostWarp>(rows, lane, stage);
    });
    warp.absorb(stage, kScale * kLog2e,
                [&](int n, int i) { return slot + i < visible[static_cast<size_t>(n)]; });
  }
  warp.finish();

  // A weight is off by the rounding of its score's terms; values by their own size.
  const auto allowed = [&](int query) {
    return (20.0 * rounding(kType) + 1e-5) * value_size + (starts(query) ? 1e-5 : 0.0);
  };
  int states_seen = 0;
  warp.each_state([&](int query, float max, float sum) {
    ++states_seen;
    if (query == kQueries - 1) return;
    const AttnState& wanted = states[static_cast<size_t>(query)];
    if (wanted.sum == 0.0f) {
      EXPECT_EQ(sum, 0.0f);
      return;
    }
    const double ours = max / kLog2e + std::log(sum), theirs = wanted.max + std::log(wanted.sum);
    EXPECT_NEAR(ours, theirs, 4.0 * rounding(kType) + 1e-5) << "query " << query;
  });
  EXPECT_EQ(states_seen, kQueries);
  std::vector<int> seen(q.size());
  warp.each_out([&](int query, int channel, float sum, float out) {
    const size_t at = static_cast<size_t>(query) * kDim + static_cast<size_t>(channel);
    ++seen[at];
    const AttnState& wanted = states[static_cast<size_t>(query)];
    if (query == kQueries - 1 || wanted.sum == 0.0f) return;
    EXPECT_NEAR(out / sum, expected[at] / wanted.sum, allowed(query)) << query << ", " << channel;
  });
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<int64_t>(seen.size()));
}

template <DType kType, int kDim>
void expect_ref_of_dim(uint64_t& seed) {
  expect_ref<kType, kDim, 1>(16, 1.0f, seed++);
  expect_ref<kType, kDim, 1>(48, 1.0f, seed++);
  expect_ref<kType, kDim, 2>(32, 1.0f, seed++);
}

TEST(CudaAccumulator, AgreesWithRefForEveryTypeAndHeadSize) {
  uint64_t seed = 1;
  expect_ref_of_dim<DType::kBF16, 64>(seed);
  expect_ref_of_dim<DType::kBF16, 80>(seed);  // no multiple of 8 lanes x 16 bytes
  expect_ref_of_dim<DType::kBF16, 96>(seed);
  expect_ref_of_dim<DType::kBF16, 128>(seed);
  expect_ref_of_dim<DType::kF16, 64>(seed);
  expect_ref_of_dim<DType::kF16, 256>(seed);
  expect_ref_of_dim<DType::kI8, 32>(seed);
  expect_ref_of_dim<DType::kI8, 64>(seed);
  expect_ref_of_dim<DType::kI8, 96>(seed);
  expect_ref_of_dim<DType::kI8, 128>(seed);
  expect_ref_of_dim<DType::kF8E4M3, 32>(seed);
  expect_ref_of_dim<DType::kF8E4M3, 64>(seed);
  expect_ref_of_dim<DType::kF8E4M3, 96>(seed);
  expect_ref_of_dim<DType::kF8E4M3, 128>(seed);
  expect_ref_of_dim<DType::kF32, 48>(seed);
  expect_ref_of_dim<DType::kF32, 64>(seed);
  expect_ref_of_dim<DType::kF32, 128>(seed);
}

// Weights times 8-bit scales would fall out of the range of f16.
TEST(CudaAccumulator, TinyAndHugeEightBitValuesKeepTheirPrecision) {
  expect_ref<DType::kI8, 64, 1>(32, 1e-7f, 101);
  expect_ref<DType::kI8, 64, 1>(32, 1e7f, 102);
  expect_ref<DType::kF8E4M3, 64, 1>(32, 1e-7f, 103);
  expect_ref<DType::kF8E4M3, 64, 1>(32, 1e7f, 104);
}

TEST(CudaAccumulator, EightBitFloatsAreWidenedByMovingTheirBits) {
  for (uint32_t byte = 0; byte < 0x100; ++byte) {
    if ((byte & 0x7f) == 0x7f) continue;
    const uint32_t bytes = byte | (byte ^ 0x80) << 8 | 0x380000 | byte << 24;
    uint32_t moved[2], wanted[2];
    widen_f8_by_moves<HostWarp>(bytes, moved[0], moved[1]);
    HostWarp::widen_bytes<DType::kF8E4M3>(bytes, wanted[0], wanted[1]);
    ASSERT_EQ(moved[0], wanted[0]) << byte;
    ASSERT_EQ(moved[1], wanted[1]) << byte;
  }
}

// A value that is not finite must not vanish among those that are: its row's scale is NaN.
template <DType kType>
void expect_nan_of_a_value() {
  Rng rng(8);
  RandomPage page({16, 64, kType}, 1.0f, rng);
  const auto q = random_floats(64, rng);
  std::vector<float> value(64, 1.0f);
  value[3] = std::numeric_limits<float>::infinity();
  write_slot(page.host, 0, 5, q.data(), value.data());
  Accumulator<HostWarp, kType, 64, 1> warp;
  warp.set_queries([&](int n) { return n == 0 ? q.data() : nullptr; });
  warp.clear();
  TileStage<kType, 64> stage;
  const auto rows = tile_rows<kType, 64>(page.device, 0, 0, 16);
  HostWarp::each([&](int lane) {
    copy_keys<HostWarp>(rows, lane, stage);
    copy_values<HostWarp>(rows, lane, stage);
  });
  warp.absorb(stage, 1.0f, [](int, int) { return true; });
  warp.finish();
  warp.each_out([&](int query, int, float sum, float out) {
    EXPECT_TRUE(query != 0 || std::isnan(out / sum));
  });
}

TEST(CudaAccumulator, AnEightBitValueThatIsNotFiniteIsSeen) {
  expect_nan_of_a_value<DType::kI8>();
  expect_nan_of_a_value<DType::kF8E4M3>();
}

// Rows behind the last slot hold whatever was in memory.
TEST(CudaAccumulator, RowsThatWereNotWrittenAreNotSeen) {
  Rng rng(7);
  RandomPage page({16, 64, DType::kBF16}, 1.0f, rng);
  const auto q = random_floats(64, rng);
  std::fill(page.page + 3 * 128, page.page + 16 * 128, std::byte{0xff});  // NaN
  std::fill(page.page + 19 * 128, page.page + 32 * 128, std::byte{0xff});
  Accumulator<HostWarp, DType::kBF16, 64, 1> warp;
  warp.set_queries([&](int n) { return n == 0 ? q.data() : nullptr; });
  warp.clear();
  TileStage<DType::kBF16, 64> stage;
  const auto rows = tile_rows<DType::kBF16, 64>(page.device, 0, 0, 3);
  HostWarp::each([&](int lane) {
    copy_keys<HostWarp>(rows, lane, stage);
    copy_values<HostWarp>(rows, lane, stage);
  });
  warp.absorb(stage, 1.0f, [](int, int i) { return i < 3; });
  warp.finish();
  warp.each_out([&](int query, int, float sum, float out) {
    EXPECT_TRUE(query != 0 || std::isfinite(out / sum));
  });
}

}  // namespace
}  // namespace dmc::kernels::cuda

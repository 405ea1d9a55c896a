#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "base/rng.h"
#include "kernels/kernel_testing.h"
#include "kernels/ref/attention_ref.h"

namespace dmc::kernels {
namespace {

// A stream of random slots in pages whose ids are shuffled.
struct Slots {
  std::vector<float> memory;  // floats, for their alignment
  std::vector<std::byte*> table;
  std::vector<int32_t> pages;
  PoolView pool;

  Slots(int64_t slots, const PageFormat& format, Rng& rng) {
    const auto count = static_cast<size_t>((slots + format.page_slots - 1) / format.page_slots);
    const size_t page_floats = static_cast<size_t>(format.bytes()) / sizeof(float) + 1;
    memory.resize(std::max<size_t>(1, count) * page_floats);
    pages.resize(count);
    std::iota(pages.begin(), pages.end(), 0);
    for (size_t i = count; i > 1; --i) std::swap(pages[i - 1], pages[rng.below(i)]);
    for (size_t i = 0; i < count; ++i) {
      table.push_back(reinterpret_cast<std::byte*>(memory.data() + i * page_floats));
    }
    pool = {table.data(), format};
    for (int64_t slot = 0; slot < slots; ++slot) {
      const auto key = random_floats(static_cast<size_t>(format.head_dim), rng);
      const auto value = random_floats(static_cast<size_t>(format.head_dim), rng);
      write_slot(pool, pages[static_cast<size_t>(slot / format.page_slots)],
                 slot % format.page_slots, key.data(), value.data(),
                 static_cast<float>(3.0 * rng.uniform()));
    }
  }
};

struct Result {
  std::vector<AttnState> states;
  std::vector<float> out;
};

// exp of a score and sums of `slots` terms, each in f32, relative to a result of norm about 1.
double tolerance(int64_t slots, int head_dim) {
  return 8.0 * std::numeric_limits<float>::epsilon() *
         std::sqrt(static_cast<double>(slots + 1) * head_dim);
}

double error(const Result& a, const Result& b, int head_dim) {
  double largest = 0.0;
  for (size_t r = 0; r < a.states.size(); ++r) {
    largest = std::max<double>(largest, std::abs(a.states[r].sum / b.states[r].sum - 1.0));
    for (int i = 0; i < head_dim; ++i) {
      const size_t n = r * static_cast<size_t>(head_dim) + static_cast<size_t>(i);
      largest = std::max<double>(largest,
                                 std::abs(a.out[n] / a.states[r].sum - b.out[n] / b.states[r].sum));
    }
  }
  return largest;
}

// Runs attend_slots and attend_rows of every variant on one stream against ref. Ref sums in f64
// over what the slots hold, so rounding slots is no part of the difference.
void expect_agreement(const PageFormat& format, int64_t slots, int group, uint64_t seed) {
  Rng rng(seed);
  const int d = format.head_dim;
  const Slots stream(slots, format, rng);
  const auto q = random_floats(static_cast<size_t>(group * d), rng);
  const auto own = random_floats(q.size(), rng);
  const Result start{std::vector<AttnState>(static_cast<size_t>(group), {0.1f, 1.0f}), own};
  // 8-bit keys meet queries of 14 bits: a score is off by up to d * 2^-14 / sqrt(12 d) * scale.
  const double rounding = format.type == DType::kI8 ? 0.2 * std::sqrt(d / 12.0) / 8191.0 : 0.0;
  const double allowed = tolerance(slots, d) + 4.0 * rounding;
  const SlotRange range{stream.pages.data(), slots / 3, slots};
  Result expected = start;
  ref::attend_slots(stream.pool, range, q.data(), group, 0.2f, expected.states.data(),
                    expected.out.data());
  for_each_variant([&](const Backend& b) {
    Result result = start;
    b.attend_slots(stream.pool, range, q.data(), group, 0.2f, result.states.data(),
                   result.out.data());
    ASSERT_LT(error(result, expected, d), allowed) << "attend_slots";
  });

  // Rows that see more and more: a staircase from 0 to all slots.
  std::vector<int64_t> visible(static_cast<size_t>(group));
  for (int r = 0; r < group; ++r) {
    visible[static_cast<size_t>(r)] = slots * r / std::max(1, group - 1);
  }
  const SlotRange all{stream.pages.data(), 0, slots};
  expected = start;
  ref::attend_rows(stream.pool, all, q.data(), group, visible.data(), 0.2f, expected.states.data(),
                   expected.out.data());
  for_each_variant([&](const Backend& b) {
    Result result = start;
    b.attend_rows(stream.pool, all, q.data(), group, visible.data(), 0.2f, result.states.data(),
                  result.out.data());
    ASSERT_LT(error(result, expected, d), allowed) << "attend_rows";
  });
}

TEST(Attention, EveryBackendAgreesWithRefOnTheGrid) {
  uint64_t seed = 1;
  for (DType type : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kF8E4M3}) {
    for (int head_dim : {20, 32, 64, 80, 96, 128}) {  // 20: no multiple of a vector
      for (int page_slots : {1, 8, 16, 64}) {
        for (int64_t slots : {0, 1, page_slots - 1, page_slots, page_slots + 1, 1000}) {
          for (int group : {1, 4, 8}) {
            SCOPED_TRACE(std::string(dtype_name(type)) + " d=" + std::to_string(head_dim) +
                         " page=" + std::to_string(page_slots) + " slots=" + std::to_string(slots) +
                         " group=" + std::to_string(group));
            const bool masses = seed % 2 == 0;
            expect_agreement({page_slots, head_dim, type, masses}, slots, group, seed++);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// One page and its memory.
struct OnePage {
  explicit OnePage(const PageFormat& format)
      : memory(static_cast<size_t>(format.bytes()) / sizeof(float)),
        page(reinterpret_cast<std::byte*>(memory.data())),
        pool{&page, format} {}
  OnePage(const OnePage&) = delete;
  OnePage& operator=(const OnePage&) = delete;

  std::vector<float> memory;  // floats, for their alignment
  std::byte* page;
  PoolView pool;
};

// How far a number may be from what a slot of 8 bits holds of it; the row's largest is `largest`.
float allowed_step(DType type, float x, float largest) {
  if (type == DType::kI8) return largest / 253.0f;
  return std::max(std::abs(x) * 0x1.02p-4f, largest / 448.0f * 0x1p-10f);  // mantissa; subnormals
}

TEST(SlotPage, AnEightBitSlotIsWithinHalfAStep) {
  Rng rng(3);
  for (DType type : {DType::kI8, DType::kF8E4M3}) {
    const OnePage one({4, 32, type});
    for (int slot = 0; slot < 4; ++slot) {
      auto key = random_floats(32, rng), value = std::vector<float>(32, 0.0f);
      for (size_t i = 0; i < 32; ++i) key[i] *= std::pow(10.0f, static_cast<float>(3 * slot - 6));
      std::vector<float> key_back(32), value_back(32);
      write_slot(one.pool, 0, slot, key.data(), value.data());
      read_slot(one.pool, 0, slot, key_back.data(), value_back.data());
      const float largest =
          std::abs(*std::ranges::max_element(key, {}, [](float x) { return std::abs(x); }));
      for (size_t i = 0; i < 32; ++i) {
        EXPECT_LE(std::abs(key[i] - key_back[i]), allowed_step(type, key[i], largest));
      }
      EXPECT_EQ(value_back, value);  // zeros stay zeros
    }
  }
}

// Norm of what the channels behind the first lose of `key` in a slot of this type.
double loss_behind_the_first(DType type, const std::vector<float>& key) {
  const OnePage one({1, static_cast<int>(key.size()), type});
  std::vector<float> key_back(key.size()), value_back(key.size());
  write_slot(one.pool, 0, 0, key.data(), key.data());
  read_slot(one.pool, 0, 0, key_back.data(), value_back.data());
  double sum = 0.0;
  for (size_t i = 1; i < key.size(); ++i) sum += std::pow(key[i] - key_back[i], 2.0);
  return std::sqrt(sum);
}

// What tells the two types of 8 bits apart: steps of one size, and steps of the number's size.
TEST(SlotPage, WholeNumbersAreFinerUnlessAChannelIsFarLargerThanTheOthers) {
  Rng rng(4);
  auto key = random_floats(64, rng);
  EXPECT_LT(3.0 * loss_behind_the_first(DType::kI8, key),
            loss_behind_the_first(DType::kF8E4M3, key));
  key[0] = 100.0f;
  EXPECT_LT(3.0 * loss_behind_the_first(DType::kF8E4M3, key),
            loss_behind_the_first(DType::kI8, key));
}

TEST(SlotPage, ARowOfEightBitsThatIsNotFiniteIsReadAsNaN) {
  for (DType type : {DType::kI8, DType::kF8E4M3}) {
    for (float wrong : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      const OnePage one({1, 32, type});
      std::vector<float> key(32, 1.0f), value(32, 1.0f), key_back(32), value_back(32);
      key[5] = wrong;
      write_slot(one.pool, 0, 0, key.data(), value.data());
      read_slot(one.pool, 0, 0, key_back.data(), value_back.data());
      EXPECT_TRUE(std::ranges::all_of(key_back, [](float x) { return std::isnan(x); }));
      EXPECT_EQ(value_back, value);
    }
  }
}

// A slot whose key and value hold half of the numbers of e4m3, between slots of zeros: a query that
// picks one channel has that number as its score, and one that sees all slots alike their sum.
TEST(Attention, EveryEightBitFloatIsReadExactly) {
  constexpr int kDim = 128, kSlots = 16, kAt = 3;
  for (int sign : {0x00, 0x80}) {
    const OnePage one({kSlots, kDim, DType::kF8E4M3});
    std::fill_n(one.pool.key_scales(0, 0), 2 * kSlots, 1.0f);
    std::vector<float> numbers;
    for (int i = 0; i < kDim; ++i) {
      const int bits = sign | (i == 0x7f ? 0 : i);  // slots hold no NaN
      *(one.pool.keys<std::byte>(0, kAt) + i) = static_cast<std::byte>(bits);
      *(one.pool.values<std::byte>(0, kAt) + i) = static_cast<std::byte>(bits);
      numbers.push_back(f8_to_f32(static_cast<uint8_t>(bits)));
    }
    const int32_t page = 0;
    std::vector<float> picking(kDim * kDim, 0.0f), scores(kDim * kSlots), alike(kDim, 0.0f);
    for (size_t i = 0; i < kDim; ++i) picking[i * kDim + i] = 1.0f;
    for_each_variant([&](const Backend& b) {
      std::vector<AttnState> states(kDim, {-1e30f, 0.0f});
      std::vector<float> out(kDim * kDim, 0.0f);
      b.attend_slots(one.pool, {&page, 0, kSlots, scores.data(), kSlots}, picking.data(), kDim,
                     1.0f, states.data(), out.data());
      for (size_t i = 0; i < kDim; ++i) ASSERT_EQ(scores[i * kSlots + kAt], numbers[i]) << i;

      AttnState state{-1e30f, 0.0f};
      std::vector<float> sum(kDim, 0.0f);
      b.attend_slots(one.pool, {&page, 0, kSlots}, alike.data(), 1, 1.0f, &state, sum.data());
      EXPECT_EQ(sum, numbers) << "attend_slots";
      state = {-1e30f, 0.0f}, sum.assign(kDim, 0.0f);
      const int64_t all = kSlots;
      b.attend_rows(one.pool, {&page, 0, kSlots}, alike.data(), 1, &all, 1.0f, &state, sum.data());
      EXPECT_EQ(sum, numbers) << "attend_rows";
    });
  }
}

// The same bits alone, in a batch, and a second time.
TEST(Attention, DecodeDoesNotDependOnTheBatch) {
  Rng rng(5);
  constexpr int kHeadDim = 64, kGroup = 2;
  const Slots stream(1500, {16, kHeadDim, DType::kF16}, rng);
  const auto q = random_floats(kGroup * kHeadDim, rng), open = random_floats(2 * kHeadDim, rng);
  std::vector<float> alone(q.size()), batched(q.size() * 7);
  const auto item = [&](float* out, int64_t slots) {
    return DecodeItem{stream.pages.data(),    slots,    open.data(),
                      open.data() + kHeadDim, q.data(), out};
  };
  const DecodeItem one = item(alone.data(), 1500);
  decode_attention(stream.pool, std::span(&one, 1), kGroup, 0.125f);
  std::vector<DecodeItem> items;
  for (size_t i = 0; i < 7; ++i) {
    items.push_back(item(&batched[i * q.size()], i == 4 ? 1500 : static_cast<int64_t>(200 * i)));
  }
  decode_attention(stream.pool, items, kGroup, 0.125f);
  EXPECT_EQ(std::vector<float>(batched.begin() + static_cast<long>(4 * q.size()),
                               batched.begin() + static_cast<long>(5 * q.size())),
            alone);
}

}  // namespace
}  // namespace dmc::kernels

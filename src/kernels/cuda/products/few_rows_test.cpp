// Products with few rows on one lane, against sums in f64.
#include "kernels/cuda/products/few_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/lanes/team.h"
#include "kernels/cuda/rows/model_ops.h"
#include "kernels/cuda/sampling/sample.h"
#include "kernels/kernel_testing.h"

namespace dmc::kernels::cuda {
namespace {

// Numbers in a type's bytes, aligned as a device's memory is, and what they are.
struct Stored {
  std::vector<Packet> packets;
  std::vector<float> numbers;

  template <DType kType>
  static Stored random(int64_t count, Rng& rng) {
    Stored stored;
    stored.numbers = random_floats(static_cast<size_t>(count), rng);
    stored.packets.resize(static_cast<size_t>(count / kPacketNumbers<kType>));
    for (size_t i = 0; i < stored.numbers.size(); ++i) {
      float& x = stored.numbers[i];
      if constexpr (kType == DType::kI8) {
        x = std::round(127.0f * x);
        reinterpret_cast<int8_t*>(stored.packets.data())[i] = static_cast<int8_t>(x);
      } else if constexpr (kType == DType::kF32) {
        reinterpret_cast<float*>(stored.packets.data())[i] = x;
      } else {
        const uint16_t bits = kType == DType::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
        reinterpret_cast<uint16_t*>(stored.packets.data())[i] = bits;
        x = kType == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
      }
    }
    return stored;
  }
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(packets.data()); }
};

template <DType kType>
void expect_product(int rows, int64_t outputs, int64_t inputs, bool with_bias, uint64_t seed) {
  SCOPED_TRACE(std::to_string(rows) + " rows, " + std::to_string(outputs) + " x " +
               std::to_string(inputs) + ", seed " + std::to_string(seed));
  ASSERT_TRUE(takes_few_rows(kType, inputs, rows));
  Rng rng(seed);
  const Stored weights = Stored::random<kType>(outputs * inputs, rng);
  const Stored x = Stored::random<row_type(kType)>(rows * inputs, rng);
  const std::vector<float> bias = random_floats(static_cast<size_t>(outputs), rng);
  std::vector<float> scales(bias.size(), 1.0f);
  if (is_scaled(kType)) scales = random_floats(bias.size(), rng);
  const float guard = -7.0f;  // behind the last number, which nobody may touch
  std::vector<float> y(static_cast<size_t>(rows * outputs) + 1, guard);
  const FewRows args{weights.bytes(), x.bytes(), scales.data(), with_bias ? bias.data() : nullptr,
                     y.data(),        outputs,   inputs,        rows};
  with_few_rows(rows, [&]<int kRows>() {
    for (int64_t first = 0; first < outputs; first += kOutputsAtOnce) {
      multiply_few_rows<SoloTeam, kType, kRows>(args, first);
    }
  });
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < outputs; ++o) {
      double sum = with_bias ? bias[static_cast<size_t>(o)] : 0.0, size = 0.0;
      for (int64_t i = 0; i < inputs; ++i) {
        const double term = double{scales[static_cast<size_t>(o)]} *
                            weights.numbers[static_cast<size_t>(o * inputs + i)] *
                            x.numbers[static_cast<size_t>(r * inputs + i)];
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(y[static_cast<size_t>(r * outputs + o)], sum, 1e-6 * (1.0 + size))
          << "row " << r << ", output " << o;
    }
  }
  EXPECT_EQ(y.back(), guard);
}

TEST(CudaFewRows, GiveTheSumsOfF64) {
  uint64_t seed = 1;
  for (int rows = 1; rows <= kMostFewRows; ++rows) {
    for (int64_t outputs : {1, 3, 4, 9, 64}) {
      expect_product<DType::kF32>(rows, outputs, 4 * (1 + rows), rows % 2 == 0, seed++);
      expect_product<DType::kBF16>(rows, outputs, 8 * (1 + outputs), rows % 2 == 1, seed++);
      expect_product<DType::kI8>(rows, outputs, 16 * (1 + outputs), rows % 2 == 1, seed++);
      expect_product<DType::kF16>(rows, outputs, 8 * (1 + outputs), rows % 2 == 1, seed++);
    }
  }
}

TEST(CudaFewRows, AreRefusedWhereRowsWouldNotBeAligned) {
  EXPECT_FALSE(takes_few_rows(DType::kBF16, 12, 1));
  EXPECT_TRUE(takes_few_rows(DType::kF32, 12, 1));
  EXPECT_FALSE(takes_few_rows(DType::kF32, 16, kMostFewRows + 1));
  EXPECT_FALSE(takes_few_rows(DType::kI8, 24, 1));
  EXPECT_TRUE(takes_few_rows(DType::kI8, 32, 4 * kMostFewRows));
  EXPECT_FALSE(takes_few_rows(DType::kI8, 32, 4 * kMostFewRows + 1));
}

TEST(CudaSample, TheLikeliestTokenIsTheLowestOfEquals) {
  const std::vector<float> logits = {-3.0f, 2.0f, -INFINITY, 2.0f, 1.0f};
  EXPECT_EQ(likeliest_token<SoloTeam>(logits.data(), 5), 1);
  EXPECT_EQ(likeliest_token<SoloTeam>(logits.data(), 1), 0);
  const std::vector<float> lost(4, -INFINITY);
  EXPECT_EQ(likeliest_token<SoloTeam>(lost.data(), 4), 0);
}

TEST(CudaSample, LogitsThatAreNoNumbersChooseNoToken) {
  std::vector<float> logits(100, 1.0f);
  logits[70] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(likeliest_token<SoloTeam>(logits.data(), 100), -1);
  EXPECT_EQ(likeliest_token<SoloTeam>(logits.data(), 70), 0);
}

TEST(CudaModelOps, ATokenThatWasNotChosenEmbedsAsZeros) {
  const std::vector<float> table = {1.0f, 2.0f, 3.0f, 4.0f};
  for (int32_t token : {-1, 2}) {
    std::vector<float> x(2, -7.0f);
    embed_row<SoloTeam>(EmbeddingTable<float>{table.data(), nullptr, 2, 2}, token, {}, 0, x.data());
    EXPECT_EQ(x, std::vector<float>(2, 0.0f));
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda

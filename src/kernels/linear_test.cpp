#include "kernels/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "kernels/kernel_testing.h"
#include "kernels/ref/linear_ref.h"

namespace dmc::kernels {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8};

PackedWeights random_weights(int64_t outputs, int64_t inputs, DType type, Rng& rng) {
  PackedWeights weights(outputs, inputs, type);
  weights.set_rows(0, outputs, random_floats(static_cast<size_t>(outputs * inputs), rng).data());
  return weights;
}

// x as linear_block takes it.
std::vector<float> in_panels(const std::vector<float>& x, int64_t rows, int64_t inputs) {
  std::vector<float> panels;
  for (int64_t begin = 0; begin < rows; begin += kPanelRows) {
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t r = begin; r < std::min(begin + kPanelRows, rows); ++r) {
        panels.push_back(x[static_cast<size_t>(r * inputs + i)]);
      }
    }
  }
  return panels;
}

TEST(Linear, EveryBackendAgreesWithRefOnTheGrid) {
  uint64_t seed = 1;
  for (DType type : kTypes) {
    for (int64_t outputs : {1, 64, 100, 192}) {
      for (int64_t inputs : {1, 63, 300}) {
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 17, 40}) {
          Rng rng(seed++);
          const PackedWeights weights = random_weights(outputs, inputs, type, rng);
          const auto x = random_floats(static_cast<size_t>(rows * inputs), rng);
          const auto bias = random_floats(static_cast<size_t>(outputs), rng);
          const auto panels = in_panels(x, rows, inputs);
          const auto run = [&](const auto& block) {
            std::vector<float> y(static_cast<size_t>(rows * outputs), -7.0f);
            for (int64_t b = 0; b < weights.blocks(); ++b) {
              block(weights, b, panels.data(), rows, bias.data(), y.data());
            }
            return y;
          };
          const auto expected = run(ref::linear_block);
          // Terms of at most 1 in size, summed one by one.
          const double allowed =
              4.0 * std::numeric_limits<float>::epsilon() * static_cast<double>(inputs);
          for_each_variant([&](const Backend& b) {
            const auto y = run(b.linear_block);
            for (size_t i = 0; i < y.size(); ++i) {
              ASSERT_NEAR(y[i], expected[i], allowed)
                  << dtype_name(type) << " outputs=" << outputs << " inputs=" << inputs
                  << " rows=" << rows << " at " << i;
            }
          });
        }
      }
    }
  }
}

TEST(Linear, ARowHasTheSameBitsInAnyBatchAndOnAnyThreads) {
  Rng rng(7);
  constexpr int64_t kRows = 300, kInputs = 525, kOutputs = 130;
  for (DType type :
       {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kI4, DType::kI8Groups}) {
    const PackedWeights weights = random_weights(kOutputs, kInputs, type, rng);
    const auto x = random_floats(kRows * kInputs, rng);
    std::vector<float> all(kRows * kOutputs), again(all.size()), one(kOutputs);
    linear(weights, nullptr, x.data(), kRows, all.data());
    const int threads = num_threads();
    set_num_threads(1);
    linear(weights, nullptr, x.data(), kRows, again.data());
    set_num_threads(threads);
    EXPECT_EQ(all, again);
    for (int64_t row : {0, 5, 239, 299}) {
      linear(weights, nullptr, x.data() + row * kInputs, 1, one.data());
      EXPECT_EQ(
          std::vector<float>(all.begin() + row * kOutputs, all.begin() + (row + 1) * kOutputs), one)
          << dtype_name(type) << " row " << row;
    }
  }
}

TEST(Linear, SiluProductEqualsItsFormula) {
  Rng rng(9);
  auto gate = random_floats(1003, rng);
  const auto up = random_floats(1003, rng);
  for (float& g : gate) g *= 30.0f;
  gate[5] = -200.0f;  // exp(200) is beyond f32
  std::vector<float> expected(1003);
  ref::silu_product(gate.data(), up.data(), 1003, expected.data());
  for_each_variant([&](const Backend& b) {
    std::vector<float> result(1003);
    b.silu_product(gate.data(), up.data(), 1003, result.data());
    for (size_t i = 0; i < 1003; ++i) ASSERT_NEAR(result[i], expected[i], 1e-5) << gate[i];
  });
}

}  // namespace
}  // namespace dmc::kernels

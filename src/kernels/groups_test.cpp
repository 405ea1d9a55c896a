#include "kernels/groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include "kernels/kernel_testing.h"
#include "kernels/linear.h"
#include "kernels/ref/linear_ref.h"

namespace dmc::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

constexpr DType kTypes[] = {DType::kI4, DType::kI8Groups};

PackedWeights random_weights(int64_t outputs, int64_t inputs, DType type, Rng& rng) {
  PackedWeights weights(outputs, inputs, type);
  weights.set_rows(0, outputs, random_floats(static_cast<size_t>(outputs * inputs), rng).data());
  return weights;
}

std::vector<ActivationGroup> rounded_by_ref(const std::vector<float>& x, int64_t rows) {
  const int64_t inputs = static_cast<int64_t>(x.size()) / rows, groups = groups_of(inputs);
  std::vector<ActivationGroup> result(static_cast<size_t>(rows * groups));
  for (int64_t r = 0; r < rows; ++r) {
    ref::round_activations(x.data() + r * inputs, inputs, &result[r * groups]);
  }
  return result;
}

std::vector<float> product(const PackedWeights& weights, const std::vector<ActivationGroup>& x,
                           int64_t rows, const std::vector<float>& bias, const auto& block) {
  std::vector<float> y(static_cast<size_t>(rows * weights.outputs()), -7.0f);
  for (int64_t b = 0; b < weights.blocks(); ++b) {
    block(weights, b, x.data(), rows, bias.data(), y.data());
  }
  return y;
}

void expect_backends_agree(DType type, int64_t outputs, int64_t inputs, int64_t rows, Rng& rng) {
  const PackedWeights weights = random_weights(outputs, inputs, type, rng);
  const auto x = rounded_by_ref(random_floats(static_cast<size_t>(rows * inputs), rng), rows);
  const auto bias = random_floats(static_cast<size_t>(outputs), rng);
  const auto expected = product(weights, x, rows, bias, ref::group_block);
  // At most three terms a group, of at most 64 in size together, summed one by one.
  const double allowed = 3.0 * std::numeric_limits<float>::epsilon() * 64.0 *
                         static_cast<double>(groups_of(inputs) * groups_of(inputs) + 1);
  for_each_variant([&](const Backend& b) {
    const auto y = product(weights, x, rows, bias, b.group_block);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected[i], allowed) << "at " << i;
    }
  });
}

TEST(Groups, EveryBackendAgreesWithRefOnTheGrid) {
  uint64_t seed = 1;
  for (DType type : kTypes) {
    for (int64_t outputs : {1, 64, 100, 192}) {
      for (int64_t inputs : {1, 31, 32, 63, 300}) {
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 17, 40}) {
          SCOPED_TRACE(std::string(dtype_name(type)) + " outputs=" + std::to_string(outputs) +
                       " inputs=" + std::to_string(inputs) + " rows=" + std::to_string(rows));
          Rng rng(seed++);
          expect_backends_agree(type, outputs, inputs, rows, rng);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// Numbers at the ends of their ranges: no sum of products overflows.
TEST(Groups, TheLargestNumbersAreExact) {
  constexpr int64_t kInputs = 64, kOutputs = 64;
  const float scales[] = {1.0f, 2.0f}, minima[] = {0.0f, -4.0f};
  for (const auto& [type, number] : {std::pair(DType::kI4, 15), std::pair(DType::kI8Groups, 127),
                                     std::pair(DType::kI8Groups, -128)}) {
    PackedWeights weights(kOutputs, kInputs, type);
    const std::vector<int8_t> numbers(kInputs, static_cast<int8_t>(number));
    for (int64_t o = 0; o < kOutputs; ++o) {
      weights.set_groups(o, {numbers.data(), kGroup, scales, minima});
    }
    for (float sign : {1.0f, -1.0f}) {
      const auto x = rounded_by_ref(std::vector<float>(kInputs, 127.0f * sign), 1);
      const float expected = sign * 127.0f * 32.0f * static_cast<float>(3 * number - 4);
      for_each_variant([&](const Backend& b) {
        const auto y = product(weights, x, 1, std::vector<float>(kOutputs), b.group_block);
        for (float value : y) EXPECT_EQ(value, expected) << number;
      });
    }
  }
}

TEST(Groups, ActivationsRoundAsRefRoundsThem) {
  Rng rng(3);
  for (int64_t inputs : {1, 31, 32, 33, 256}) {
    auto x = random_floats(static_cast<size_t>(inputs), rng);
    for (float& value : x) value *= 1000.0f;
    if (inputs == 256) {
      std::fill_n(x.begin() + 32, 32, 0.0f);
      x[70] = kNaN;
      x[100] = -std::numeric_limits<float>::infinity();
    }
    const auto expected = rounded_by_ref(x, 1);
    for_each_variant([&](const Backend& b) {
      std::vector<ActivationGroup> result(expected.size());
      b.round_activations(x.data(), inputs, result.data());
      for (size_t g = 0; g < result.size(); ++g) {
        if (std::isnan(expected[g].scale)) {
          EXPECT_TRUE(std::isnan(result[g].scale) && std::isnan(result[g].sum)) << g;
          continue;
        }
        EXPECT_TRUE(std::ranges::equal(result[g].numbers, expected[g].numbers)) << g;
        EXPECT_EQ(result[g].scale, expected[g].scale) << g;
        EXPECT_EQ(result[g].sum, expected[g].sum) << g;
        EXPECT_TRUE(std::ranges::equal(result[g].offsets, expected[g].offsets)) << g;
      }
    });
  }
}

// The bound that linear.h states, and what is usual.
TEST(Groups, ProductsAreWithinTheRoundingOfActivations) {
  Rng rng(5);
  constexpr int64_t kInputs = 1000, kOutputs = 70;
  const auto x = random_floats(kInputs, rng);
  std::vector<float> y(kOutputs), row(kInputs);
  const auto largest_near = [&](int64_t i) {
    const auto count = static_cast<size_t>(std::min(kGroup, kInputs - i / kGroup * kGroup));
    float largest = 0.0f;
    for (float value : std::span(&x[i / kGroup * kGroup], count)) {
      largest = std::max(largest, std::abs(value));
    }
    return largest;
  };
  for (DType type : kTypes) {
    const PackedWeights weights = random_weights(kOutputs, kInputs, type, rng);
    linear(weights, nullptr, x.data(), 1, y.data());
    double squared_error = 0.0, squared = 0.0;
    for (int64_t o = 0; o < kOutputs; ++o) {
      weights.get_row(o, row.data());
      double exact = 0.0, bound = 1e-4;
      for (int64_t i = 0; i < kInputs; ++i) {
        exact += static_cast<double>(x[i]) * row[i];
        bound += std::abs(row[i]) * largest_near(i) / 254.0;
      }
      EXPECT_LE(std::abs(y[o] - exact), bound);
      squared_error += (y[o] - exact) * (y[o] - exact);
      squared += exact * exact;
    }
    EXPECT_LT(std::sqrt(squared_error / squared), 0.005) << dtype_name(type);
  }
}

TEST(Groups, AnActivationThatIsNotFiniteShowsInItsRowAlone) {
  Rng rng(6);
  const PackedWeights weights = random_weights(64, 96, DType::kI4, rng);
  auto x = random_floats(2 * 96, rng);
  x[96 + 40] = std::numeric_limits<float>::infinity();
  std::vector<float> y(2 * 64);
  linear(weights, nullptr, x.data(), 2, y.data());
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(std::isfinite(y[i]));
    EXPECT_TRUE(std::isnan(y[64 + i]));
  }
}

struct Stored {
  DType type;
  int64_t group;
  int least, most;
  bool minima;
};

// As files have them: no number, scale or minimum is changed, and no other output's.
TEST(Groups, StoredGroupsAreKept) {
  Rng rng(8);
  constexpr int64_t kInputs = 75, kOutputs = 66;
  const float scales[] = {0.0625f, 3.0f, 0x1.004p-14f, -1.0f, 2.0f};
  const float minima[] = {-1.5f, 0.0f, 7.0f};
  for (const Stored& stored : {Stored{DType::kI4, 32, 0, 15, true},
                               {DType::kI4, 32, -8, 7, false},
                               {DType::kI8Groups, 32, 0, 31, true},
                               {DType::kI8Groups, 32, -128, 127, false},
                               {DType::kI8Groups, 16, -32, 31, false}}) {
    PackedWeights weights(kOutputs, kInputs, stored.type);
    std::vector<std::vector<int8_t>> rows(kOutputs, std::vector<int8_t>(kInputs));
    for (int64_t o = 0; o < kOutputs; ++o) {
      for (int8_t& number : rows[o]) {
        number =
            static_cast<int8_t>(stored.least + rng.uniform() * (stored.most + 1 - stored.least));
      }
      weights.set_groups(o,
                         {rows[o].data(), stored.group, scales, stored.minima ? minima : nullptr});
    }
    std::vector<float> row(kInputs);
    for (int64_t o = 0; o < kOutputs; ++o) {
      weights.get_row(o, row.data());
      for (int64_t i = 0; i < kInputs; ++i) {
        const float minimum = stored.minima ? minima[i / kGroup] : 0.0f;
        ASSERT_EQ(row[i], scales[i / stored.group] * static_cast<float>(rows[o][i]) + minimum)
            << dtype_name(stored.type) << " output " << o << " input " << i;
      }
    }
  }
}

TEST(Groups, RoundingFindsNumbersThatAreOnALine) {
  float weights[kGroup];
  for (int i = 0; i < kGroup; ++i) weights[i] = -0.5f + 0.125f * static_cast<float>((i * 7) % 16);
  int8_t numbers[kGroup];
  float scale, minimum;
  round_to_4_bits(weights, kGroup, numbers, &scale, &minimum);
  EXPECT_EQ(scale, 0.125f);
  EXPECT_EQ(minimum, -0.5f);
  for (int i = 0; i < kGroup; ++i) EXPECT_EQ(numbers[i], (i * 7) % 16);
}

TEST(Groups, RoundingIsNoWorseThanToNearestBetweenTheExtremes) {
  Rng rng(10);
  for (int trial = 0; trial < 100; ++trial) {
    const auto weights = random_floats(kGroup, rng);
    int8_t numbers[kGroup];
    float scale, minimum;
    round_to_4_bits(weights.data(), kGroup, numbers, &scale, &minimum);
    const auto [least, most] = std::ranges::minmax(weights);
    const double step = (most - least) / 15.0;
    double squared = 0.0;
    for (int i = 0; i < kGroup; ++i) {
      const double off = scale * static_cast<float>(numbers[i]) + minimum - weights[i];
      squared += off * off;
    }
    // Half a step each at most.
    EXPECT_LE(squared, kGroup * step * step / 4.0);
  }
}

TEST(Groups, RoundingTakesAnyNumbers) {
  const auto round_first = [](float first, float rest) {
    float weights[kGroup];
    std::fill_n(weights, kGroup, rest);
    weights[0] = first;
    int8_t numbers[kGroup];
    float scale, minimum;
    round_to_4_bits(weights, kGroup, numbers, &scale, &minimum);
    return scale * static_cast<float>(numbers[0]) + minimum;
  };
  EXPECT_TRUE(std::isnan(round_first(kNaN, 1.0f)));
  EXPECT_EQ(round_first(0.25f, 0.25f), 0.25f);
  EXPECT_EQ(round_first(0.0f, 0.0f), 0.0f);
  EXPECT_NEAR(round_first(1e30f, 0.0f), 65504.0f * 15.0f, 1.0f);  // all that is there
  EXPECT_EQ(round_first(-1e30f, -1e30f), -65504.0f);
}

}  // namespace
}  // namespace dmc::kernels

#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace dmc::kernels {
namespace {

constexpr int64_t kHeadDim = 64, kPositions = 4096;
constexpr double kTheta = 10000.0;
constexpr double kTolerance = 4 * std::numeric_limits<float>::epsilon();

std::vector<float> random_vector(Rng& rng) {
  std::vector<float> values(kHeadDim);
  for (float& x : values) x = static_cast<float>(2.0 * rng.uniform() - 1.0);
  return values;
}

// The definition: channels i and i + d/2 are a complex number, multiplied by e^(i * angle).
TEST(Rope, IsAComplexRotation) {
  const RopeTable table(kPositions, kHeadDim, kTheta);
  Rng rng(1);
  for (int64_t position : {0, 1, 17, 4095}) {
    const std::vector<float> in = random_vector(rng);
    std::vector<float> out(in.size());
    rotate(in.data(), out.data(), kHeadDim, table.cos_at(position), table.sin_at(position));
    for (size_t i = 0; i < kHeadDim / 2; ++i) {
      const double frequency = std::pow(kTheta, -2.0 * static_cast<double>(i) / kHeadDim);
      const auto expected = std::complex<double>(in[i], in[i + kHeadDim / 2]) *
                            std::polar(1.0, static_cast<double>(position) * frequency);
      EXPECT_NEAR(out[i], expected.real(), kTolerance) << "position " << position;
      EXPECT_NEAR(out[i + kHeadDim / 2], expected.imag(), kTolerance) << "position " << position;
    }
  }
}

TEST(Rope, RotatesBackInPlace) {
  const RopeTable table(kPositions, kHeadDim, kTheta);
  Rng rng(2);
  const std::vector<float> in = random_vector(rng);
  std::vector<float> x = in;
  rotate(x.data(), x.data(), kHeadDim, table.cos_at(99), table.sin_at(99));
  EXPECT_NE(x, in);
  rotate(x.data(), x.data(), kHeadDim, table.cos_at(99), table.sin_at(99), -1.0f);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_NEAR(x[i], in[i], kTolerance);
}

// What makes it a position embedding: the score depends on the distance alone.
TEST(Rope, ScoresDependOnTheDistance) {
  const RopeTable table(kPositions, kHeadDim, kTheta);
  Rng rng(3);
  const std::vector<float> q = random_vector(rng), k = random_vector(rng);
  const auto score = [&](int64_t q_position, int64_t k_position) {
    std::vector<float> a(kHeadDim), b(kHeadDim);
    rotate(q.data(), a.data(), kHeadDim, table.cos_at(q_position), table.sin_at(q_position));
    rotate(k.data(), b.data(), kHeadDim, table.cos_at(k_position), table.sin_at(k_position));
    double sum = 0.0;
    for (size_t i = 0; i < kHeadDim; ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
  };
  EXPECT_NEAR(score(30, 10), score(4020, 4000), kHeadDim * kTolerance);
  EXPECT_GT(std::abs(score(30, 10) - score(40, 10)), 1e-3);
}

// Nothing but the last channel changes, and that one gets nothing of its partner.
TEST(Rope, LastChannelStaysZero) {
  const RopeTable usual(kPositions, kHeadDim, kTheta);
  RopeTable table = usual;
  table.keep_last_zero();
  Rng rng(2);
  for (int64_t position : {0, 1, 17, 4095}) {
    std::vector<float> in = random_vector(rng);
    in.back() = 0.0f;
    std::vector<float> out(in.size()), expected(in.size());
    rotate(in.data(), out.data(), kHeadDim, table.cos_at(position), table.sin_at(position));
    rotate(in.data(), expected.data(), kHeadDim, usual.cos_at(position), usual.sin_at(position));
    expected.back() = 0.0f;
    EXPECT_EQ(out, expected) << "position " << position;
  }
}

}  // namespace
}  // namespace dmc::kernels

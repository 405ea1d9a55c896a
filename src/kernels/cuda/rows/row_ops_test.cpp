// The row by row work of the CUDA kernels, done by a team of one lane, against the CPU's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/cuda/lanes/team.h"
#include "kernels/cuda/rows/heads.h"
#include "kernels/cuda/rows/norm.h"
#include "kernels/cuda/rows/pool_scan.h"
#include "kernels/cuda/rows/pool_training.h"
#include "kernels/kernel_testing.h"
#include "kernels/rope.h"
#include "policy/policy.h"

namespace dmc::kernels::cuda {
namespace {

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, double allowed,
                 const char* what) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], wanted[i], allowed * (1.0 + std::abs(wanted[i]))) << what << " " << i;
  }
}

struct PoolCase {
  PoolShape shape;
  double merge_share;  // of decisions near 1
};

void expect_same_pooling(const PoolCase& c, uint64_t seed) {
  SCOPED_TRACE("window " + std::to_string(c.shape.window) + " seed " + std::to_string(seed));
  Rng rng(seed);
  const auto scalars = static_cast<size_t>(c.shape.batch * c.shape.tokens * c.shape.heads);
  const size_t numbers = scalars * static_cast<size_t>(c.shape.dim);
  const auto k = random_floats(numbers, rng), v = random_floats(numbers, rng);
  const auto gk = random_floats(numbers, rng), gv = random_floats(numbers, rng);
  std::vector<float> alpha(scalars), omega(scalars);
  for (size_t i = 0; i < scalars; ++i) {
    const double logit = (rng.uniform() < c.merge_share ? 6.0 : -6.0) + 8.0 * (rng.uniform() - 0.5);
    alpha[i] = static_cast<float>(1.0 / (1.0 + std::exp(-4.0 * logit)));
    omega[i] = static_cast<float>(0.05 + 0.9 * rng.uniform());
  }
  std::vector<float> k_out(numbers), v_out(numbers), total(scalars);
  std::vector<float> dk(numbers), dv(numbers), dalpha(scalars), domega(scalars);
  pool_forward(c.shape, k.data(), v.data(), alpha.data(), omega.data(), k_out.data(), v_out.data(),
               total.data());
  pool_backward(c.shape, k.data(), v.data(), alpha.data(), omega.data(), k_out.data(), v_out.data(),
                total.data(), gk.data(), gv.data(), dk.data(), dv.data(), dalpha.data(),
                domega.data());

  const float nan = std::nanf("");
  std::vector<float> my_k(numbers, nan), my_v(numbers, nan), my_total(scalars, nan);
  std::vector<float> my_dk(numbers, nan), my_dv(numbers, nan), my_dalpha(scalars, nan);
  std::vector<float> my_domega(scalars, nan);
  std::vector<float> pull(scalars * static_cast<size_t>(c.shape.window), nan);
  const PoolTensors<float> tensors{
      c.shape,      k.data(),     v.data(),         alpha.data(),     omega.data(),
      my_k.data(),  my_v.data(),  my_total.data(),  gk.data(),        gv.data(),
      my_dk.data(), my_dv.data(), my_dalpha.data(), my_domega.data(), pull.data()};
  const auto each_stream = [&](auto&& fn) {
    for (int64_t stream = 0; stream < c.shape.batch * c.shape.heads; ++stream) fn(stream);
  };
  const auto each_token = [&](auto&& fn) {
    each_stream([&](int64_t stream) {
      for (int64_t t = 0; t < c.shape.tokens; ++t) fn(t, stream);
    });
  };
  if (c.shape.window == 0) {
    each_stream([&](int64_t s) { pool_scan_forward<SoloTeam>(tensors, s); });
    each_stream([&](int64_t s) { pool_scan_backward<SoloTeam>(tensors, s); });
  } else {
    each_token([&](int64_t t, int64_t s) { pool_forward_token<SoloTeam>(tensors, t, s); });
    each_token([&](int64_t t, int64_t s) { pool_pull_token<SoloTeam>(tensors, t, s); });
    each_token([&](int64_t t, int64_t s) { pool_gradient_token<SoloTeam>(tensors, t, s); });
  }
  expect_near(my_k, k_out, 1e-5, "k");
  expect_near(my_v, v_out, 1e-5, "v");
  expect_near(my_total, total, 1e-5, "total");
  expect_near(my_dk, dk, 1e-5, "dk");
  expect_near(my_dv, dv, 1e-5, "dv");
  expect_near(my_domega, domega, 1e-4, "domega");
  expect_near(my_dalpha, dalpha, 1e-4, "dalpha");
}

TEST(CudaRowOps, PoolingForTrainingAgreesWithTheCpu) {
  uint64_t seed = 1;
  for (int window : {0, 1, 2, 12, 40}) {
    for (double merge_share : {0.0, 0.5, 0.95}) {
      expect_same_pooling({{2, 50, 3, 8, window}, merge_share}, seed++);
      expect_same_pooling({{1, 1, 1, 4, window}, merge_share}, seed++);
    }
  }
}

void norm_head(std::vector<float>& numbers, size_t first, const std::vector<float>& weight) {
  double sum = 0.0;
  for (size_t i = 0; i < weight.size(); ++i) sum += double{numbers[first + i]} * numbers[first + i];
  const double factor = 1.0 / std::sqrt(sum / static_cast<double>(weight.size()) + 1e-6);
  for (size_t i = 0; i < weight.size(); ++i) {
    numbers[first + i] = static_cast<float>(numbers[first + i] * factor * weight[i]);
  }
}

void expect_same_heads(bool norms, DecisionChannel channel, bool rotates, uint64_t seed) {
  const bool decides = channel != DecisionChannel::kNone;
  const bool both = channel == DecisionChannel::kQueriesAndKeys;
  const policy::LearnedConstants constants{
      .scale = 1.5f, .offset = 0.1f, .importance_offset = -0.3f, .epsilon = 0.01f};
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  constexpr int kRows = 7, kKvHeads = 2, kGroup = 3, kDim = 16;
  constexpr size_t kWidth = kKvHeads * (kGroup + 2) * kDim;
  const RopeTable rope(40, kDim, 10000.0);
  auto rows = random_floats(kRows * kWidth, rng);
  const auto q_norm = random_floats(kDim, rng), k_norm = random_floats(kDim, rng);
  std::vector<int32_t> positions;
  for (int row = 0; row < kRows; ++row) positions.push_back(static_cast<int32_t>(rng.below(40)));
  const HeadsSpec spec{kKvHeads,
                       kGroup,
                       kDim,
                       channel,
                       decides,
                       constants,
                       norms ? q_norm.data() : nullptr,
                       norms ? k_norm.data() : nullptr,
                       1e-6f};
  std::vector<float> q(kRows * kKvHeads * kGroup * kDim), k(kRows * kKvHeads * kDim), v(k.size());
  std::vector<float> importance(kRows * kKvHeads);
  std::vector<uint8_t> merge(importance.size());
  const HeadsRows<float> io{rows.data(),
                            positions.data(),
                            rotates ? rope.cos.data() : nullptr,
                            rotates ? rope.sin.data() : nullptr,
                            q.data(),
                            k.data(),
                            v.data(),
                            merge.data(),
                            importance.data()};
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < kKvHeads; ++head) split_head<SoloTeam>(spec, io, row, head);
  }

  const policy::Policy* const policy = policy::find_policy(decides ? "dmc" : "dense");
  for (size_t row = 0; row < kRows; ++row) {
    const size_t first = row * kWidth, keys = first + kKvHeads * kGroup * kDim;
    for (size_t h = 0; norms && h < kKvHeads * (kGroup + 1); ++h) {
      norm_head(rows, first + h * kDim, h < kKvHeads * kGroup ? q_norm : k_norm);
    }
    for (size_t head = 0; head < kKvHeads; ++head) {
      policy::DecisionInput in;
      const size_t own = both ? keys + head * kDim : first + head * kGroup * kDim;
      in.decision = rows[own + kDim - 1];
      for (size_t g = 0; both && g < kGroup; ++g) {
        in.importance += rows[first + (head * kGroup + g) * kDim + kDim - 1] / kGroup;
      }
      in.constants = constants;
      const policy::Verdict verdict = policy->decide(in);
      EXPECT_EQ(merge[row * kKvHeads + head], policy::hides_previous(verdict.decision));
      EXPECT_NEAR(importance[row * kKvHeads + head], verdict.importance, 1e-6);
    }
    const auto clear = [&](size_t h) { rows[first + h * kDim + kDim - 1] = 0.0f; };
    for (size_t h = 0; both && h < kKvHeads * (kGroup + 1); ++h) clear(h);
    for (size_t head = 0; decides && !both && head < kKvHeads; ++head) clear(head * kGroup);
    for (size_t h = 0; rotates && h < kKvHeads * kGroup; ++h) {
      float* const at = &rows[first + h * kDim];
      rotate(at, at, kDim, rope.cos_at(positions[row]), rope.sin_at(positions[row]));
    }
    for (size_t head = 0; decides && !both && head < kKvHeads; ++head) clear(head * kGroup);
    for (size_t i = 0; i < kKvHeads * kGroup * kDim; ++i) {
      EXPECT_NEAR(q[row * kKvHeads * kGroup * kDim + i], rows[first + i], 1e-5);
    }
    for (size_t i = 0; i < kKvHeads * kDim; ++i) {
      EXPECT_NEAR(k[row * kKvHeads * kDim + i], rows[keys + i], 1e-5);
      EXPECT_EQ(v[row * kKvHeads * kDim + i], rows[keys + kKvHeads * kDim + i]);
    }
  }
}

TEST(CudaRowOps, HeadsAreSplitAsTheDecoderDoes) {
  uint64_t seed = 50;
  for (bool norms : {false, true}) {
    for (const auto channel : {DecisionChannel::kNone, DecisionChannel::kQueriesAndKeys,
                               DecisionChannel::kFirstQueries}) {
      for (bool rotates : {false, true}) expect_same_heads(norms, channel, rotates, seed++);
    }
  }
}

TEST(CudaRowOps, NormOfASum) {
  Rng rng(80);
  constexpr int kWidth = 33;
  const auto x = random_floats(kWidth, rng), y = random_floats(kWidth, rng);
  const auto weight = random_floats(kWidth, rng), bias = random_floats(kWidth, rng);
  for (bool centred : {false, true}) {
    std::vector<float> sum = x, out(kWidth);
    add_and_norm_row<SoloTeam>(sum.data(), y.data(), kWidth, centred, 1e-5f, weight.data(),
                               bias.data(), out.data());
    double mean = 0.0, squares = 0.0;
    for (size_t i = 0; i < kWidth; ++i) {
      EXPECT_EQ(sum[i], x[i] + y[i]);
      mean += centred ? sum[i] / double{kWidth} : 0.0;
    }
    for (float s : sum) squares += (s - mean) * (s - mean) / kWidth;
    for (size_t i = 0; i < kWidth; ++i) {
      EXPECT_NEAR(out[i], (sum[i] - mean) / std::sqrt(squares + 1e-5) * weight[i] + bias[i], 1e-5);
    }
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda

// Pooling for training, the split into heads and the norm on a GPU. What they compute is checked on
// the CPU (kernels/cuda/rows/row_ops_test.cpp); this holds the launches and the teams of lanes
// against it. Without a GPU they are skipped.
#include "kernels/cuda/rows/row_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "decode_step.h"
#include "gpu_testing.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/rows/pooling.h"

namespace dmc::kernels::cuda {
namespace {

using Floats = DeviceArray<float>;

void expect_same_pooling(int window) {
  SCOPED_TRACE(window);
  Rng rng(1);
  const PoolShape shape{2, 300, 3, 96, window};
  const size_t scalars = 2 * 300 * 3, numbers = scalars * 96;
  const auto k = random_numbers(numbers, rng), v = random_numbers(numbers, rng);
  const auto gk = random_numbers(numbers, rng), gv = random_numbers(numbers, rng);
  std::vector<float> alpha, omega;
  for (size_t i = 0; i < scalars; ++i) {
    alpha.push_back(static_cast<float>(rng.below(2) == 0 ? rng.uniform() : 0.999));
    omega.push_back(static_cast<float>(0.05 + 0.9 * rng.uniform()));
  }
  std::vector<float> k_out(numbers), v_out(numbers), total(scalars), dk(numbers), dv(numbers),
      dalpha(scalars), domega(scalars);
  kernels::pool_forward(shape, k.data(), v.data(), alpha.data(), omega.data(), k_out.data(),
                        v_out.data(), total.data());
  kernels::pool_backward(shape, k.data(), v.data(), alpha.data(), omega.data(), k_out.data(),
                         v_out.data(), total.data(), gk.data(), gv.data(), dk.data(), dv.data(),
                         dalpha.data(), domega.data());
  const Floats in_k(k), in_v(v), in_gk(gk), in_gv(gv), in_alpha(alpha), in_omega(omega);
  const Floats out_k(numbers), out_v(numbers), out_total(scalars), out_dk(numbers), out_dv(numbers),
      out_dalpha(scalars), out_domega(scalars), pull(scalars * static_cast<size_t>(window));
  const PoolTensors<float> tensors{
      shape,        in_k.get(),   in_v.get(),       in_alpha.get(),   in_omega.get(),
      out_k.get(),  out_v.get(),  out_total.get(),  in_gk.get(),      in_gv.get(),
      out_dk.get(), out_dv.get(), out_dalpha.get(), out_domega.get(), pull.get()};
  pool_forward(tensors, nullptr);
  pool_backward(tensors, nullptr);
  check(cudaDeviceSynchronize(), "pooling");
  EXPECT_LE(relative_error(out_k.download(), k_out), 1e-6);
  EXPECT_LE(relative_error(out_v.download(), v_out), 1e-6);
  EXPECT_LE(relative_error(out_total.download(), total), 1e-6);
  EXPECT_LE(relative_error(out_dk.download(), dk), 1e-5);
  EXPECT_LE(relative_error(out_dv.download(), dv), 1e-5);
  EXPECT_LE(relative_error(out_dalpha.download(), dalpha), 1e-4);
  EXPECT_LE(relative_error(out_domega.download(), domega), 1e-4);
}

TEST(CudaRows, PoolingForTraining) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  for (int window : {0, 12}) expect_same_pooling(window);
}

// The norm of wide rows, against f64.
TEST(CudaRows, NormOfASum) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  Rng rng(2);
  constexpr int kRows = 5, kWidth = 4096;
  const auto x = random_numbers(kRows * kWidth, rng), y = random_numbers(kRows * kWidth, rng);
  const auto weight = random_numbers(kWidth, rng);
  const Floats sum(x), add(y), scale(weight), out(x.size());
  add_and_norm({kWidth, false, 1e-5f, scale.get(), nullptr}, sum.get(), add.get(), kRows, out.get(),
               nullptr);
  check(cudaDeviceSynchronize(), "norm");
  std::vector<float> expected(x.size()), added(x.size());
  for (size_t row = 0; row < kRows; ++row) {
    double squares = 0.0;
    for (size_t i = row * kWidth; i < (row + 1) * kWidth; ++i) {
      added[i] = x[i] + y[i];
      squares += double{added[i]} * added[i] / kWidth;
    }
    for (size_t i = 0; i < kWidth; ++i) {
      expected[row * kWidth + i] =
          static_cast<float>(added[row * kWidth + i] / std::sqrt(squares + 1e-5) * weight[i]);
    }
  }
  EXPECT_EQ(sum.download(), added);
  EXPECT_LE(relative_error(out.download(), expected), 1e-6);
}

// Every query, key and value in its place: without norms and angles a split is a copy.
TEST(CudaRows, HeadsAreWhereTheyBelong) {
  if (!have_device()) GTEST_SKIP() << "no GPU";
  Rng rng(3);
  constexpr int kRows = 9, kHeads = 3, kGroup = 4, kDim = 64;
  constexpr int64_t kWidth = kHeads * (kGroup + 2) * kDim;
  const auto rows = random_numbers(kRows * kWidth, rng);
  const Floats in(rows), q(kRows * kHeads * kGroup * kDim), k(kRows * kHeads * kDim),
      v(kRows * kHeads * kDim), importance(kRows * kHeads);
  const DeviceArray<uint8_t> merge(kRows * kHeads);
  const DeviceArray<int32_t> positions(std::vector<int32_t>(kRows, 0));
  split_heads(
      HeadsSpec{
          kHeads, kGroup, kDim, DecisionChannel::kQueriesAndKeys, true, {}, nullptr, nullptr, 0.0f},
      HeadsRows<float>{in.get(), positions.get(), nullptr, nullptr, q.get(), k.get(), v.get(),
                       merge.get(), importance.get()},
      kRows, nullptr);
  check(cudaDeviceSynchronize(), "split");
  std::vector<float> wanted_q, wanted_k, wanted_v;
  std::vector<uint8_t> wanted_merge;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t i = 0; i < kWidth; ++i) {
      const int64_t head = i / kDim;
      auto& to = head < kHeads * kGroup         ? wanted_q
                 : head < kHeads * (kGroup + 1) ? wanted_k
                                                : wanted_v;
      const float x = rows[static_cast<size_t>(row * kWidth + i)];
      const bool decision = i % kDim == kDim - 1 && head < kHeads * (kGroup + 1);
      if (decision && head >= kHeads * kGroup) wanted_merge.push_back(x > 0.0f);
      to.push_back(decision ? 0.0f : x);
    }
  }
  EXPECT_EQ(q.download(), wanted_q);
  EXPECT_EQ(k.download(), wanted_k);
  EXPECT_EQ(v.download(), wanted_v);
  EXPECT_EQ(merge.download(), wanted_merge);
}

}  // namespace
}  // namespace dmc::kernels::cuda

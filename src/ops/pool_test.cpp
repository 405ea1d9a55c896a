#include "ops/pool.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "kernels/cuda/rows/pooling.h"
#include "ops/pool_backend.h"
#include "ops/pool_testing.h"

namespace dmc::ops {
namespace {

void expect_literal_twin(bool newest_weighs_one, uint64_t seed) {
  for (int64_t window : {0, 1, 12}) {
    for (double sharpness : {1.0, 20.0}) {
      at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed++);
      const auto normal = [&](at::IntArrayRef sizes, double scale = 1.0) {
        return (at::randn(sizes, generator, at::kDouble) * scale).set_requires_grad(true);
      };
      const at::Tensor k = normal({2, 61, 3, 16}), v = normal({2, 61, 3, 16});
      const at::Tensor merge = normal({2, 61, 3}, sharpness), importance = normal({2, 61, 3}, 2.0);
      const at::Tensor gk = normal({2, 61, 3, 16}).detach(), gv = normal({2, 61, 3, 16}).detach();
      const auto run = [&](auto&& function) {
        for (const at::Tensor* t : {&k, &v, &merge, &importance}) t->mutable_grad().reset();
        const auto [pk, pv] = function(k, v, merge, importance, window, newest_weighs_one);
        ((pk * gk).sum() + (pv * gv).sum()).backward();
        return std::vector<at::Tensor>{pk.detach(), pv.detach(),  k.grad(),
                                       v.grad(),    merge.grad(), importance.grad()};
      };
      const auto fast = run(pool), slow = run(pool_literal);
      for (size_t i = 0; i < fast.size(); ++i) {
        const double error = (fast[i] - slow[i]).norm().item<double>();
        EXPECT_LT(error, 1e-10 * std::max(1.0, slow[i].norm().item<double>()))
            << "result " << i << " window " << window << " seed " << seed - 1;
      }
    }
  }
}

TEST(Pool, EqualsLiteralTwinWithAllGradients) {
  expect_literal_twin(/*newest_weighs_one=*/false, 1);
  expect_literal_twin(/*newest_weighs_one=*/true, 50);
}

// What is handed to the CUDA kernels, with the same kernels on one lane of the CPU in their place.
void expect_same_from_cuda_backend(int window, bool newest_weighs_one) {
  SCOPED_TRACE(window);
  const kernels::PoolShape shape{2, 40, 3, 16, window, newest_weighs_one};
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{5});
    const auto wide = [&] { return at::randn({2, 40, 3, 16}, generator).to(type).to(at::kFloat); };
    const at::Tensor k = wide(), v = wide(), gk = wide(), gv = wide();
    const at::Tensor alpha = at::rand({2, 40, 3}, generator);
    const at::Tensor omega = at::rand({2, 40, 3}, generator);
    const auto run = [&](const PoolBackend& backend, at::ScalarType as) {
      const auto in = [&](const at::Tensor& x) { return x.to(as); };
      const auto room = [&] { return at::empty(k.sizes(), as); };
      const PoolForward x{shape, in(k), in(v), alpha, omega, room(), room(), at::empty_like(alpha)};
      const PoolBackward y{
          in(gk), in(gv), room(), room(), at::empty_like(alpha), at::empty_like(omega)};
      backend.forward(x);
      backend.backward(x, y);
      return std::vector{
          x.k_out, x.v_out, x.total, y.dk, y.dv, y.dmerge_logit, y.dimportance_logit};
    };
    const auto expected = run(cpu_pooling(), at::kFloat), got = run(cuda_pooling(), type);
    for (size_t i = 0; i < got.size(); ++i) {
      // A window of 1 leaves importances without gradient: 0 is 0 then.
      const at::Tensor error =
          (got[i].to(at::kFloat) - expected[i]).norm() / expected[i].norm().clamp_min(1e-30);
      EXPECT_LT(error.item<double>(), type == at::kFloat ? 1e-5 : 1e-2) << i << " " << type;
    }
  }
}

TEST(Pool, CudaBackendGivesTheSame) {
  if (kernels::cuda::has_pooling()) GTEST_SKIP() << "the GPU's kernels are linked";
  for (int window : {0, 12}) expect_same_from_cuda_backend(window, false);
  for (int window : {3, 12}) expect_same_from_cuda_backend(window, true);
}

TEST(Pool, OnAGpuGivesTheSame) {
  if (!at::hasCUDA() || !can_pool_on_cuda()) GTEST_SKIP() << "no GPU";
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{6});
  std::vector<at::Tensor> in;
  for (const int64_t width : {64, 64, 1, 1}) {
    const at::Tensor x = at::randn({2, 150, 3, width}, generator);
    in.push_back(width == 1 ? x.squeeze(-1) : x);
  }
  const auto run = [&](at::Device device) {
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& x : in) {
      leaves.push_back(x.to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true));
      leaves.back().set_requires_grad(true);
    }
    const auto [k, v] = pool(leaves[0], leaves[1], leaves[2], leaves[3], 12);
    (k * k + v.sin()).sum().backward();
    std::vector<at::Tensor> results = {k.detach(), v.detach()};
    for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
    for (at::Tensor& x : results) x = x.cpu();
    return results;
  };
  const auto expected = run(at::kCPU), got = run(at::kCUDA);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT(((got[i] - expected[i]).norm() / expected[i].norm()).item<double>(), 1e-4) << i;
  }
}

}  // namespace
}  // namespace dmc::ops

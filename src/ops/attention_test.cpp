#include "ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace dmc::ops {
namespace {

struct Shape {
  int64_t B, T, H, K, d;
};

struct Inputs {
  at::Tensor q, k, v, logit, gradient;
};

// `sharpness` multiplies the logits: large ones give decisions that are all but 0 or 1.
Inputs random_inputs(const Shape& s, double sharpness, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto normal = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, generator, at::kDouble);
  };
  Inputs in{normal({s.B, s.T, s.H, s.d}), normal({s.B, s.T, s.K, s.d}),
            normal({s.B, s.T, s.K, s.d}), normal({s.B, s.T, s.K}) * sharpness,
            normal({s.B, s.T, s.H, s.d})};
  for (at::Tensor* t : {&in.q, &in.k, &in.v, &in.logit}) t->set_requires_grad(true);
  return in;
}

using Attention = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&);

// The output and the four gradients.
std::vector<at::Tensor> run(Attention attention, const Inputs& in) {
  for (const at::Tensor* t : {&in.q, &in.k, &in.v, &in.logit}) t->mutable_grad().reset();
  const at::Tensor out = attention(in.q, in.k, in.v, in.logit);
  (out * in.gradient).sum().backward();
  return {out.detach(), in.q.grad(), in.k.grad(), in.v.grad(), in.logit.grad()};
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm().clamp_min(1e-30)).item<double>();
}

// The project's central claim about training speed: the stock kernel plus the diagonal's repair is
// the attention of the definition, forward and backward.
TEST(DmcAttention, FlashWithRepairEqualsLiteralTwin) {
  const Shape shapes[] = {
      {1, 1, 1, 1, 8}, {2, 37, 4, 2, 16}, {1, 130, 4, 1, 32}, {1, 600, 2, 2, 64}};
  const char* const names[] = {"out", "dq", "dk", "dv", "dlogit"};
  uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    for (double sharpness : {0.5, 5.0, 50.0}) {
      const Inputs in = random_inputs(shape, sharpness, seed++);
      const auto fast = run(dmc_attention, in), slow = run(dmc_attention_literal, in);
      for (size_t i = 0; i < fast.size(); ++i) {
        if (shape.T == 1 && i == 4) continue;  // no decision has any effect: both are zero
        EXPECT_LT(relative_error(fast[i], slow[i]), 1e-10)
            << names[i] << " T=" << shape.T << " sharpness=" << sharpness << " seed=" << seed - 1;
      }
    }
  }
}

// With decisions of exactly 0 and 1, a query sees the last token of each closed segment and itself.
TEST(DmcAttention, HardDecisionsSeeOnlySegmentEnds) {
  Inputs in = random_inputs({1, 50, 2, 1, 16}, 1.0, 7);
  const double infinity = std::numeric_limits<double>::infinity();
  const at::NoGradGuard no_grad;
  in.logit = in.logit.sign() * infinity;
  const at::Tensor out = dmc_attention(in.q, in.k, in.v, in.logit);
  for (int64_t i = 0; i < 50; ++i) {
    std::vector<int64_t> visible;
    for (int64_t j = 0; j < i; ++j) {
      if (in.logit[0][j + 1][0].item<double>() < 0) visible.push_back(j);
    }
    visible.push_back(i);
    const at::Tensor index = at::tensor(visible);
    const at::Tensor k = in.k[0].index_select(0, index).select(1, 0);
    const at::Tensor v = in.v[0].index_select(0, index).select(1, 0);
    const at::Tensor scores = at::matmul(in.q[0][i], k.t()) / 4.0;
    const at::Tensor expected = at::matmul(scores.softmax(-1), v);
    ASSERT_LT(relative_error(out[0][i], expected), 1e-12) << "query " << i;
  }
}

TEST(DmcAttention, NeverMergingIsPlainCausalAttention) {
  Inputs in = random_inputs({2, 70, 4, 2, 32}, 1.0, 9);
  const at::NoGradGuard no_grad;
  const at::Tensor never = at::full_like(in.logit, -std::numeric_limits<double>::infinity());
  EXPECT_LT(
      relative_error(dmc_attention(in.q, in.k, in.v, never), causal_attention(in.q, in.k, in.v)),
      1e-14);
}

}  // namespace
}  // namespace dmc::ops

#include "ops/attention.h"

#include <gtest/gtest.h>

#include <functional>

#include "ops/attention_testing.h"

namespace dmc::ops {
namespace {

using Attention = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                           const at::Tensor&)>;

Attention fast_attention(int64_t delay) {
  return [delay](const auto& q, const auto& k, const auto& v, const auto& logit) {
    return decision_attention(q, k, v, logit, delay);
  };
}

Attention literal_attention(int64_t delay) {
  return [delay](const auto& q, const auto& k, const auto& v, const auto& logit) {
    return decision_attention_literal(q, k, v, logit, delay);
  };
}

// The output and the four gradients.
std::vector<at::Tensor> run(const Attention& attention, const Inputs& in) {
  for (const at::Tensor* t : {&in.q, &in.k, &in.v, &in.logit}) t->mutable_grad().reset();
  const at::Tensor out = attention(in.q, in.k, in.v, in.logit);
  (out * in.gradient).sum().backward();
  return {out.detach(), in.q.grad(), in.k.grad(), in.v.grad(), in.logit.grad()};
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm().clamp_min(1e-30)).item<double>();
}

// Delays around the kernel's tiles of 64 and around the length, from which on nothing is biased.
TEST(DecisionAttention, EqualsLiteralTwinWithAllGradients) {
  const Shape shapes[] = {
      {1, 1, 1, 1, 8}, {2, 37, 4, 2, 16}, {1, 130, 4, 1, 32}, {1, 300, 2, 2, 64}};
  const char* const names[] = {"out", "dq", "dk", "dv", "dlogit"};
  uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    for (int64_t delay : {0, 1, 7, 35, 36, 37, 63, 64, 65, 128, 129, 400}) {
      const double sharpness = std::vector{0.5, 5.0, 50.0}[seed % 3];
      const Inputs in = random_inputs(shape, sharpness, seed++);
      const auto fast = run(fast_attention(delay), in), slow = run(literal_attention(delay), in);
      for (size_t i = 0; i < fast.size(); ++i) {
        const std::string what = std::string(names[i]) + " T=" + std::to_string(shape.T) +
                                 " delay=" + std::to_string(delay) +
                                 " seed=" + std::to_string(seed - 1);
        if (slow[i].norm().item<double>() < 1e-12) {  // a lone token's weight is 1; no bias counts
          EXPECT_LT(fast[i].norm().item<double>(), 1e-12) << what;
          continue;
        }
        EXPECT_LT(relative_error(fast[i], slow[i]), 1e-10) << what;
      }
    }
  }
}

// The gradient of the logits against differences of the outputs.
TEST(DecisionAttention, GradientOfLogitsIsTheNumericOne) {
  for (int64_t delay : {0, 3}) {
    const Inputs in = random_inputs({1, 9, 2, 1, 4}, 1.0, 21);
    const at::Tensor analytic = run(fast_attention(delay), in)[4];
    const at::NoGradGuard no_grad;
    const auto loss = [&](int64_t token, double change) {
      at::Tensor logit = in.logit.detach().clone();
      logit[0][token][0] += change;
      const at::Tensor out = decision_attention(in.q, in.k, in.v, logit, delay);
      return (out * in.gradient).sum().item<double>();
    };
    for (int64_t t = 0; t < 9; ++t) {
      EXPECT_NEAR(analytic[0][t][0].item<double>(), (loss(t, 1e-6) - loss(t, -1e-6)) / 2e-6, 1e-8)
          << "token " << t << ", delay " << delay;
    }
  }
}

// With decisions of exactly 0 and 1, one token decided against is seen by the query `delay` tokens
// later for the last time: moving its value moves that query's output, and the next one's not.
TEST(DecisionAttention, AMarkedKeyIsLastSeenDelayTokensLater) {
  constexpr int64_t kTokens = 150, kMarked = 5;
  for (int64_t delay : {0, 1, 58, 59, 60, 64, 100}) {
    Inputs in = random_inputs({1, kTokens, 2, 1, 16}, 1.0, 8);
    const at::NoGradGuard no_grad;
    in.logit.fill_(-std::numeric_limits<double>::infinity());
    in.logit[0][kMarked + 1].fill_(std::numeric_limits<double>::infinity());
    const at::Tensor moved_v = in.v.detach().clone();
    moved_v[0][kMarked] += 1.0;
    const at::Tensor change = decision_attention(in.q, in.k, moved_v, in.logit, delay) -
                              decision_attention(in.q, in.k, in.v, in.logit, delay);
    for (int64_t i = 0; i < kTokens; ++i) {
      const bool seen = i >= kMarked && i - kMarked <= delay;
      EXPECT_EQ(change[0][i].abs().max().item<double>() > 0.0, seen)
          << "query " << i << ", delay " << delay;
    }
  }
}

// With decisions of exactly 0 and 1, a query sees the last token of each closed segment and itself.
TEST(DecisionAttention, HardDecisionsSeeOnlySegmentEnds) {
  Inputs in = random_inputs({1, 50, 2, 1, 16}, 1.0, 7);
  const double infinity = std::numeric_limits<double>::infinity();
  const at::NoGradGuard no_grad;
  in.logit = in.logit.sign() * infinity;
  const at::Tensor out = decision_attention(in.q, in.k, in.v, in.logit, 0);
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

TEST(DecisionAttention, NeverDecidingIsPlainCausalAttention) {
  Inputs in = random_inputs({2, 70, 4, 2, 32}, 1.0, 9);
  const at::NoGradGuard no_grad;
  const at::Tensor never = at::full_like(in.logit, -std::numeric_limits<double>::infinity());
  const at::Tensor plain = causal_attention(in.q, in.k, in.v);
  for (int64_t delay : {0, 16}) {
    EXPECT_TRUE(at::equal(decision_attention(in.q, in.k, in.v, never, delay), plain));
  }
}

// Plain attention against LibTorch's, f32, with gradients: errors of f32 sums.
TEST(CausalAttention, EqualsLibTorchs) {
  const Attention stock = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor&) {
    const auto by_head = [&](const at::Tensor& x) {
      return x.repeat_interleave(q.size(2) / x.size(2), 2).transpose(1, 2);
    };
    return at::scaled_dot_product_attention(q.transpose(1, 2), by_head(k), by_head(v), {}, 0.0,
                                            /*is_causal=*/true)
        .transpose(1, 2);
  };
  const Attention ours = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor&) { return causal_attention(q, k, v); };
  for (int64_t d : {20, 64, 128}) {
    Inputs in = random_inputs({2, 333, 4, 2, d}, 1.0, 11);
    for (at::Tensor* t : {&in.q, &in.k, &in.v}) *t = t->detach().to(at::kFloat).requires_grad_();
    in.gradient = in.gradient.to(at::kFloat);
    const auto a = run(ours, in), b = run(stock, in);
    for (size_t i = 0; i < 4; ++i) EXPECT_LT(relative_error(a[i], b[i]), 2e-6) << i << " d=" << d;
  }
}

}  // namespace
}  // namespace dmc::ops

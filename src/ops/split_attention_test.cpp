#include "ops/split_attention.h"

#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/attention_testing.h"

namespace dmc::ops {
namespace {

// log(1 - alpha of the next token), as decision_attention() has it.
at::Tensor bias_of(const at::Tensor& logit) {
  const at::Tensor bias = at::log_sigmoid(-logit).roll(-1, 1);
  return at::cat({bias.narrow(1, 0, bias.size(1) - 1), at::zeros_like(bias.narrow(1, 0, 1))}, 1);
}

// The output and the gradients of q, k, v and the logits, all in f64. q, k, v and the gradient that
// comes in are of `dtype`.
template <class Attention>
std::vector<at::Tensor> run(const Attention& attention, const Inputs& in,
                            at::ScalarType dtype = at::kDouble) {
  const auto leaf = [](const at::Tensor& x, at::ScalarType type) {
    return x.detach().to(type, /*non_blocking=*/false, /*copy=*/true).set_requires_grad(true);
  };
  const at::Tensor q = leaf(in.q, dtype), k = leaf(in.k, dtype), v = leaf(in.v, dtype);
  const at::Tensor logit = leaf(in.logit, c10::promoteTypes(dtype, at::kFloat));
  const at::Tensor out = attention(q, k, v, logit);
  (out * in.gradient.to(dtype)).sum().backward();
  std::vector<at::Tensor> results = {out.detach(), q.grad(), k.grad(), v.grad(), logit.grad()};
  for (at::Tensor& x : results) x = x.to(at::kCPU, at::kDouble);
  return results;
}

auto split(int64_t delay, const AttentionPair& pair = plain_pair()) {
  return [delay, &pair](const auto& q, const auto& k, const auto& v, const auto& logit) {
    return split_attention(pair, q, k, v, bias_of(logit), delay);
  };
}

auto literal(int64_t delay) {
  return [delay](const auto& q, const auto& k, const auto& v, const auto& logit) {
    return decision_attention_literal(q, k, v, logit, delay);
  };
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

const char* const kNames[] = {"out", "dq", "dk", "dv", "dlogit"};

// Near alone, far of one token, of all but the query itself, and what lies between.
TEST(SplitAttention, EqualsLiteralTwinWithAllGradients) {
  const Shape shapes[] = {{1, 1, 1, 1, 8}, {1, 2, 2, 1, 6}, {2, 37, 4, 2, 16}, {1, 50, 6, 2, 20}};
  uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    for (const int64_t delay :
         {int64_t{0}, int64_t{1}, int64_t{12}, shape.T - 2, shape.T - 1, shape.T, shape.T + 7}) {
      if (delay < 0) continue;
      const double sharpness = std::vector{0.5, 5.0, 50.0}[seed % 3];
      const Inputs in = random_inputs(shape, sharpness, seed++);
      const auto fast = run(split(delay), in), slow = run(literal(delay), in);
      for (size_t i = 0; i < fast.size(); ++i) {
        const std::string what = std::string(kNames[i]) + " T=" + std::to_string(shape.T) +
                                 " delay=" + std::to_string(delay) +
                                 " seed=" + std::to_string(seed - 1);
        if (slow[i].norm().item<double>() < 1e-12) {  // no bias counts
          EXPECT_LT(fast[i].norm().item<double>(), 1e-12) << what;
        } else {
          EXPECT_LT(relative_error(fast[i], slow[i]), 1e-12) << what;
        }
      }
    }
  }
}

TEST(SplitAttention, WithoutBiasesIsPlainCausalAttention) {
  const Inputs in = random_inputs({2, 33, 4, 2, 16}, 1.0, 40);
  const auto plain = [](const auto& q, const auto& k, const auto& v, const auto&) {
    return causal_attention(q, k, v);
  };
  const auto composed = [](const auto& q, const auto& k, const auto& v, const auto&) {
    return split_attention(plain_pair(), q, k, v, {}, 0);
  };
  const auto outputs = [&](const auto& attention) {
    Inputs leaves = in;
    for (at::Tensor* x : {&leaves.q, &leaves.k, &leaves.v}) {
      *x = x->detach().clone().set_requires_grad(true);
    }
    const at::Tensor out = attention(leaves.q, leaves.k, leaves.v, leaves.logit);
    (out * in.gradient).sum().backward();
    return std::vector{out.detach(), leaves.q.grad(), leaves.k.grad(), leaves.v.grad()};
  };
  const auto expected = outputs(plain), got = outputs(composed);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT(relative_error(got[i], expected[i]), 1e-12) << kNames[i];
  }
}

// The whole Jacobian, column by column, against differences: nothing of the twin's is shared here.
TEST(SplitAttention, GradientsAreTheNumericOnes) {
  for (const int64_t delay : {0, 3}) {
    const Inputs in = random_inputs({1, 7, 2, 1, 4}, 1.0, 21);
    const auto analytic = run(split(delay), in);
    const std::vector<at::Tensor> leaves = {in.q, in.k, in.v, in.logit};
    const auto loss = [&] {
      const at::NoGradGuard no_grad;
      return (split(delay)(in.q, in.k, in.v, in.logit) * in.gradient).sum().item<double>();
    };
    for (size_t which = 0; which < leaves.size(); ++which) {
      auto* const numbers = leaves[which].mutable_data_ptr<double>();
      for (int64_t i = 0; i < leaves[which].numel(); ++i) {
        const double before = numbers[i];
        numbers[i] = before + 1e-6;
        const double above = loss();
        numbers[i] = before - 1e-6;
        const double below = loss();
        numbers[i] = before;
        EXPECT_NEAR(analytic[which + 1].flatten()[i].item<double>(), (above - below) / 2e-6, 1e-7)
            << kNames[which + 1] << "[" << i << "], delay " << delay;
      }
    }
  }
}

// Rounded before, what is compared is what attention itself loses.
Inputs rounded_to_bf16(Inputs in) {
  for (at::Tensor* x : {&in.q, &in.k, &in.v, &in.gradient}) {
    *x = x->to(at::kBFloat16).to(at::kDouble);
  }
  return in;
}

// What bf16 costs: q, k, v and the bias's channels are rounded on the way in, results on the way
// out, as the GPU's kernels do. Decisions add little to the error that attention without them has.
TEST(SplitAttention, Bf16LosesLittleMoreThanPlainAttention) {
  const Inputs in = rounded_to_bf16(random_inputs({1, 256, 4, 2, 64}, 10.0, 31));
  Inputs undecided = in;
  undecided.logit = at::full_like(in.logit, -100.0);
  const auto plain_error =
      relative_error(run(split(0), undecided, at::kBFloat16)[0], run(literal(0), undecided)[0]);
  for (const int64_t delay : {0, 12}) {
    const auto rounded = run(split(delay), in, at::kBFloat16), wanted = run(literal(delay), in);
    for (size_t i = 0; i < rounded.size(); ++i) {
      const double error = relative_error(rounded[i], wanted[i]);
      EXPECT_LT(error, 3.0 * plain_error) << kNames[i] << ", delay " << delay;
    }
  }
}

// The library's kernels, with heads that they have as they are and heads that must be padded.
TEST(SplitAttention, FlashAttentionOnAGpuGivesTheSame) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  constexpr int64_t kTokens = 300;
  for (const int64_t d : {20, 64, 128}) {
    const Inputs in = rounded_to_bf16(random_inputs({2, kTokens, 4, 2, d}, 10.0, 51));
    Inputs there = in;
    for (at::Tensor* x : {&there.q, &there.k, &there.v, &there.logit, &there.gradient}) {
      *x = x->to(at::kCUDA);
    }
    for (const int64_t delay : {int64_t{0}, int64_t{1}, int64_t{12}, kTokens - 2, kTokens}) {
      const auto got = run(split(delay, flash_pair()), there, at::kBFloat16);
      const auto wanted = run(literal(delay), in);
      const size_t compared = got.size() - (delay < kTokens - 1 ? 0 : 1);  // else no bias counts
      for (size_t i = 0; i < compared; ++i) {
        EXPECT_LT(relative_error(got[i], wanted[i]), 1e-2)
            << kNames[i] << ", heads of " << d << ", delay " << delay;
      }
    }
  }
}

}  // namespace
}  // namespace dmc::ops

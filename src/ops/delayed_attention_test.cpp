// Delayed merging: attention whose far keys are pooled, alone and behind the pooling it is made
// for.
#include <gtest/gtest.h>

#include <functional>

#include "ops/attention.h"
#include "ops/attention_testing.h"
#include "ops/pool.h"
#include "ops/pool_testing.h"
#include "ops/split_attention.h"

namespace dmc::ops {
namespace {

using Leaves = std::vector<at::Tensor>;  // f64, each with a gradient
using Function = std::function<at::Tensor(const Leaves&)>;

Leaves normal_leaves(std::vector<std::vector<int64_t>> sizes, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  Leaves leaves;
  for (const std::vector<int64_t>& size : sizes) {
    leaves.push_back(at::randn(size, generator, at::kDouble).set_requires_grad(true));
  }
  return leaves;
}

at::Tensor random_gradient(const at::Tensor& out) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{99});
  return at::randn(out.sizes(), generator, at::kDouble);
}

// The output, and the gradient of each leaf; zeros for those that are not used.
std::vector<at::Tensor> run(const Function& function, const Leaves& leaves) {
  for (const at::Tensor& leaf : leaves) leaf.mutable_grad() = at::zeros_like(leaf);
  const at::Tensor out = function(leaves);
  (out * random_gradient(out)).sum().backward();
  std::vector<at::Tensor> results = {out.detach()};
  for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad().clone());
  return results;
}

void expect_same(const std::vector<at::Tensor>& fast, const std::vector<at::Tensor>& slow,
                 const std::string& what) {
  for (size_t i = 0; i < fast.size(); ++i) {
    const double error = (fast[i] - slow[i]).norm().item<double>();
    EXPECT_LT(error, 1e-10 * std::max(1.0, slow[i].norm().item<double>()))
        << what << ", result " << i;
  }
}

// What a GPU composes it of, with a slow pair in the place of a library's.
at::Tensor split(const at::Tensor& q, const NearAndFar& k, const NearAndFar& v,
                 const at::Tensor& logit, int64_t delay) {
  const at::Tensor bias = at::log_sigmoid(-logit).roll(-1, 1);
  const at::Tensor last = at::zeros_like(bias.narrow(1, 0, 1));
  const at::Tensor of_next = at::cat({bias.narrow(1, 0, bias.size(1) - 1), last}, 1);
  return split_attention(plain_pair(), q, k.near, v.near, of_next, delay, {k.far, v.far});
}

// q, near k and v, far k and v, logits.
std::vector<std::vector<int64_t>> attention_sizes(const Shape& s) {
  const std::vector<int64_t> keys = {s.B, s.T, s.K, s.d};
  return {{s.B, s.T, s.H, s.d}, keys, keys, keys, keys, {s.B, s.T, s.K}};
}

TEST(DelayedAttention, EqualsLiteralTwinWithAllGradients) {
  const Shape shapes[] = {
      {1, 1, 1, 1, 8}, {2, 37, 4, 2, 16}, {1, 130, 4, 1, 32}, {1, 200, 2, 2, 64}};
  uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    const Leaves leaves = normal_leaves(attention_sizes(shape), seed++);
    for (int64_t delay : {int64_t{0}, int64_t{1}, int64_t{12}, int64_t{63}, int64_t{64},
                          int64_t{65}, shape.T - 2, shape.T - 1, shape.T, shape.T + 70}) {
      if (delay < 0) continue;
      const auto with = [&](auto attention) {
        return [=](const Leaves& x) {
          return attention(x[0], NearAndFar{x[1], x[3]}, NearAndFar{x[2], x[4]}, 5.0 * x[5], delay);
        };
      };
      const std::string what = "T " + std::to_string(shape.T) + " delay " + std::to_string(delay);
      const auto expected = run(with(delayed_attention_literal), leaves);
      expect_same(run(with(delayed_attention), leaves), expected, what);
      expect_same(run(with(split), leaves), expected, what + ", split");
    }
  }
}

// Its two ends, to the number.
TEST(DelayedAttention, HasDmcAndDmsForItsEnds) {
  const Leaves x = normal_leaves(attention_sizes({2, 90, 4, 2, 16}), 7);
  const at::NoGradGuard no_grad;
  const auto largest = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
  };
  // No delay: pooled keys and values are all that is seen.
  EXPECT_LT(largest(delayed_attention(x[0], {x[1], x[3]}, {x[2], x[4]}, x[5], 0),
                    decision_attention(x[0], x[3], x[4], x[5], 0)),
            1e-13);
  // Nothing carried: what is seen from afar is the token itself.
  for (int64_t delay : {1, 12, 64, 89}) {
    EXPECT_LT(largest(delayed_attention(x[0], {x[1], x[1]}, {x[2], x[2]}, x[5], delay),
                      decision_attention(x[0], x[1], x[2], x[5], delay)),
              1e-13);
  }
}

// q, k, v, logits, importances.
struct Merging {
  int64_t window, delay;

  template <class Pool, class Attention>
  Function by(Pool pool_function, Attention attention) const {
    return [*this, pool_function, attention](const Leaves& x) {
      const auto [k, v] = pool_function(x[1], x[2], 3.0 * x[3], x[4] - 1.0, window,
                                        /*newest_weighs_one=*/true);
      return attention(x[0], NearAndFar{x[1], k}, NearAndFar{x[2], v}, 3.0 * x[3], delay);
    };
  }
  Function fast() const { return by(pool, delayed_attention); }
  Function literal() const { return by(pool_literal, delayed_attention_literal); }
};

Leaves merging_leaves(const Shape& s, uint64_t seed) {
  const std::vector<int64_t> keys = {s.B, s.T, s.K, s.d}, scalars = {s.B, s.T, s.K};
  return normal_leaves({{s.B, s.T, s.H, s.d}, keys, keys, scalars, scalars}, seed);
}

TEST(DelayedMerging, EqualsLiteralTwinWithAllGradients) {
  const Shape shape{2, 80, 4, 2, 16};
  uint64_t seed = 30;
  for (int64_t window : {0, 1, 12}) {
    for (int64_t delay : {int64_t{0}, int64_t{1}, int64_t{12}, shape.T - 1}) {
      const Leaves leaves = merging_leaves(shape, seed++);
      const Merging merging{window, delay};
      expect_same(run(merging.fast(), leaves), run(merging.literal(), leaves),
                  "window " + std::to_string(window) + " delay " + std::to_string(delay));
    }
  }
}

// The whole Jacobian, column by column, against differences: nothing of the twin's is shared here.
TEST(DelayedMerging, GradientsAreTheNumericOnes) {
  const char* const names[] = {"q", "k", "v", "logit", "importance"};
  for (int64_t delay : {0, 1, 3, 7}) {
    const Leaves leaves = merging_leaves({1, 8, 2, 1, 4}, 3);
    const Function function = Merging{3, delay}.fast();
    const std::vector<at::Tensor> analytic = run(function, leaves);
    const auto loss = [&] {
      const at::NoGradGuard no_grad;
      const at::Tensor out = function(leaves);
      return (out * random_gradient(out)).sum().item<double>();
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
            << names[which] << "[" << i << "], delay " << delay;
      }
    }
  }
}

// With decisions of exactly 0 and 1, moving one token's value moves those queries that see it: the
// `delay` newest and itself, and from then on those that see the slot that its content is in.
TEST(DelayedMerging, AMergedTokenIsSeenRawAndThenInItsSlot) {
  constexpr int64_t kTokens = 40, kMoved = 5, kSlotEnd = 7;
  for (int64_t delay : {0, 1, 10}) {
    Leaves x = merging_leaves({1, kTokens, 1, 1, 8}, 4);
    const at::NoGradGuard no_grad;
    x[3].fill_(-std::numeric_limits<double>::infinity());
    for (int64_t t : {kMoved + 1, kSlotEnd}) {
      x[3][0][t].fill_(std::numeric_limits<double>::infinity());
    }
    const auto out = [&](double carried) {
      Leaves moved = x;
      moved[4] = at::full_like(x[4], carried);
      const Function function = Merging{12, delay}.fast();
      const at::Tensor before = function(moved);
      moved[2] = x[2].clone();
      moved[2][0][kMoved] += 1.0;
      return (function(moved) - before).abs().amax({0, 2, 3});
    };
    const at::Tensor carrying = out(0.0), dropping = out(-1000.0);
    for (int64_t i = 0; i < kTokens; ++i) {
      EXPECT_EQ(carrying[i].item<double>() > 0.0, i >= kMoved) << i << ", delay " << delay;
      EXPECT_EQ(dropping[i].item<double>() > 0.0, i >= kMoved && i - kMoved <= delay)
          << i << ", delay " << delay;
    }
  }
}

}  // namespace
}  // namespace dmc::ops

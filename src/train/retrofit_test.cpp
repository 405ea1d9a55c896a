#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "policy/schedule.h"
#include "train/method_testing.h"

namespace dmc::train {
namespace {

constexpr int64_t kTokens = 20, kHeadDim = 8;
constexpr double kWeight = 1.7;

struct LossOf {
  model::ModelConfig config;
  TrainOptions options;

  LossOf(const MethodAndSource& method_and_source, double target_cr) {
    options.retrofit.method = std::get<Method>(method_and_source).name;
    options.retrofit.decisions = std::get<const char*>(method_and_source);
    config.num_layers = 1;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = kHeadDim;
    options.length = kTokens;
    options.retrofit.delay = find_method(options.retrofit.method)->delay.usual > 0 ? 3 : 0;
    options.retrofit.target_cr = target_cr;
    options.retrofit.temperature = 1.0;  // smooth enough for finite differences
    options.retrofit.offset = 0.3;
    options.retrofit.decision_scale = 2.0;
  }

  // Decisions of tokens 1 to this one are about tokens that have gone when the sequence ends.
  int64_t last_counted() const { return kTokens - 1 - options.retrofit.delay; }

  bool by_channel() const { return options.retrofit.decisions == "neuron"; }

  // What decides: keys [1, T, K, d], or an adapter's words [1, T, 2 K].
  at::Tensor random_deciders() const {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(4);
    const std::vector<int64_t> shape = by_channel() ? std::vector<int64_t>{1, kTokens, 2, kHeadDim}
                                                    : std::vector<int64_t>{1, kTokens, 4};
    return at::randn(shape, generator, at::kDouble).set_requires_grad(true);
  }
  // The part of them that says whether to merge, [1, T, K].
  at::Tensor decisions(const at::Tensor& deciders) const {
    return by_channel() ? deciders.select(3, -1) : deciders.narrow(2, 0, 2);
  }

  // The compression loss, late in finetune, where there is no noise left.
  at::Tensor loss(const at::Tensor& deciders) const {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
    const at::Tensor q = at::randn({1, kTokens, 4, kHeadDim}, generator, at::kDouble);
    const at::Tensor k =
        by_channel() ? deciders : at::randn({1, kTokens, 2, kHeadDim}, generator, at::kDouble);
    const auto attention = find_stage("finetune")->attention(config, options);
    attention->begin_step({9, 10, 9, 1, kWeight, options.retrofit.offset});
    attention->attend(0, {q, k, at::ones_like(k), by_channel() ? at::Tensor() : deciders});
    return attention->extra_loss();
  }

  // The same with soft decisions instead of rounded ones: what the gradient should be of.
  double soft_loss(const at::Tensor& deciders) const {
    const RetrofitOptions& r = options.retrofit;
    const at::Tensor alpha =
        ((decisions(deciders) * r.decision_scale - r.offset) / r.temperature).sigmoid();
    const double merged = alpha.narrow(1, 1, last_counted()).sum().item<double>() / (kTokens * 2);
    return kWeight * (policy::merge_fraction(r.target_cr) - merged);
  }
};

class CompressionLoss : public testing::TestWithParam<MethodAndSource> {};

// Straight through: the value is that of rounded decisions, the gradient that of the soft ones.
TEST_P(CompressionLoss, GradientIsTheNumericOneOfSoftDecisions) {
  const LossOf loss_of(GetParam(), /*target_cr=*/8.0);
  const at::Tensor deciders = loss_of.random_deciders();
  const at::Tensor loss = loss_of.loss(deciders);
  const at::Tensor logit = loss_of.decisions(deciders) * 2.0 - 0.3;
  const double merges = logit.narrow(1, 1, loss_of.last_counted()).gt(0).sum().item<double>();
  EXPECT_NEAR(loss.item<double>(), kWeight * (7.0 / 8.0 - merges / (kTokens * 2)), 1e-12);

  loss.backward();
  const at::NoGradGuard no_grad;
  const double step = 1e-6;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t head = 0; head < 2; ++head) {
      const at::Tensor up = deciders.detach().clone(), down = deciders.detach().clone();
      loss_of.decisions(up)[0][t][head] += step;
      loss_of.decisions(down)[0][t][head] -= step;
      const double numeric = (loss_of.soft_loss(up) - loss_of.soft_loss(down)) / (2 * step);
      EXPECT_NEAR(loss_of.decisions(deciders.grad())[0][t][head].item<double>(), numeric, 1e-8)
          << "token " << t << " head " << head;
    }
  }
  loss_of.decisions(deciders.grad()).fill_(0.0);
  EXPECT_EQ(deciders.grad().abs().max().item<double>(), 0.0) << "nothing else decides";
}

TEST_P(CompressionLoss, IsZeroOnceTheTargetIsMet) {
  const LossOf loss_of(GetParam(), /*target_cr=*/1.05);
  const at::Tensor deciders = loss_of.random_deciders();
  const at::Tensor loss = loss_of.loss(deciders);
  EXPECT_EQ(loss.item<double>(), 0.0);
  loss.backward();
  EXPECT_EQ(deciders.grad().abs().max().item<double>(), 0.0);
}

INSTANTIATE_TEST_SUITE_P(MethodsAndSources, CompressionLoss, methods_and_sources(), test_name);

}  // namespace
}  // namespace dmc::train

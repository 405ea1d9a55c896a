#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "policy/schedule.h"
#include "train/method.h"

namespace dmc::train {
namespace {

constexpr int64_t kTokens = 20, kHeadDim = 8;
constexpr double kWeight = 1.7;

struct LossOf {
  io::ModelConfig config;
  TrainOptions options;

  LossOf(const Method& method, double target_cr) {
    config.num_layers = 1;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = kHeadDim;
    options.length = kTokens;
    options.retrofit.method = method.name;
    options.retrofit.target_cr = target_cr;
    options.retrofit.temperature = 1.0;  // smooth enough for finite differences
    options.retrofit.offset = 0.3;
    options.retrofit.decision_scale = 2.0;
  }

  // The compression loss of keys k [1, T, K, d], late in finetune, where there is no noise left.
  at::Tensor loss(const at::Tensor& k) const {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
    const at::Tensor q = at::randn({1, kTokens, 4, kHeadDim}, generator, at::kDouble);
    const auto attention = find_stage("finetune")->attention(config, options);
    attention->begin_step({9, 10, 9, 1, kWeight});
    attention->attend(0, q, k, at::ones_like(k));
    return attention->extra_loss();
  }

  // The same with soft decisions instead of rounded ones: what the gradient should be of.
  double soft_loss(const at::Tensor& k) const {
    const RetrofitOptions& r = options.retrofit;
    const at::Tensor alpha =
        ((k.select(3, -1) * r.decision_scale - r.offset) / r.temperature).sigmoid();
    const double merged = alpha.narrow(1, 1, kTokens - 1).sum().item<double>() / (kTokens * 2);
    return kWeight * (policy::merge_fraction(r.target_cr) - merged);
  }
};

at::Tensor random_keys() {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(4);
  return at::randn({1, kTokens, 2, kHeadDim}, generator, at::kDouble).set_requires_grad(true);
}

class CompressionLoss : public testing::TestWithParam<Method> {};

// Straight through: the value is that of rounded decisions, the gradient that of the soft ones.
TEST_P(CompressionLoss, GradientIsTheNumericOneOfSoftDecisions) {
  const LossOf loss_of(GetParam(), /*target_cr=*/8.0);
  const at::Tensor k = random_keys();
  const at::Tensor loss = loss_of.loss(k);
  const at::Tensor logit = k.select(3, -1) * 2.0 - 0.3;
  const double merges = logit.narrow(1, 1, kTokens - 1).gt(0).sum().item<double>();
  EXPECT_NEAR(loss.item<double>(), kWeight * (7.0 / 8.0 - merges / (kTokens * 2)), 1e-12);

  loss.backward();
  const at::NoGradGuard no_grad;
  const double step = 1e-6;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t head = 0; head < 2; ++head) {
      const at::Tensor up = k.detach().clone(), down = k.detach().clone();
      up[0][t][head][kHeadDim - 1] += step;
      down[0][t][head][kHeadDim - 1] -= step;
      const double numeric = (loss_of.soft_loss(up) - loss_of.soft_loss(down)) / (2 * step);
      EXPECT_NEAR(k.grad()[0][t][head][kHeadDim - 1].item<double>(), numeric, 1e-8)
          << "token " << t << " head " << head;
    }
  }
  EXPECT_EQ(k.grad().narrow(3, 0, kHeadDim - 1).abs().max().item<double>(), 0.0)
      << "only the decision channel decides";
}

TEST_P(CompressionLoss, IsZeroOnceTheTargetIsMet) {
  const LossOf loss_of(GetParam(), /*target_cr=*/1.05);
  const at::Tensor k = random_keys();
  const at::Tensor loss = loss_of.loss(k);
  EXPECT_EQ(loss.item<double>(), 0.0);
  loss.backward();
  EXPECT_EQ(k.grad().abs().max().item<double>(), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Methods, CompressionLoss,
                         testing::ValuesIn(methods().begin(), methods().end()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace dmc::train

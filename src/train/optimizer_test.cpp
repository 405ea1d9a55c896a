#include "train/optimizer.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <limits>

#include "dist/thread_groups.h"

namespace dmc::train {
namespace {

struct Fixture {
  std::map<std::string, at::Tensor> parameters = {
      {"matrix", at::ones({2, 3}).set_requires_grad(true)},
      {"vector", at::ones({4}).set_requires_grad(true)},
      {"frozen", at::ones({2})},
  };
  TrainOptions options;

  void set_gradients(double value) {
    for (auto& [name, parameter] : parameters) {
      if (parameter.requires_grad()) parameter.mutable_grad() = at::full_like(parameter, value);
    }
  }
};

// The gradient is clipped, so the first step has the size of the learning rate whatever its norm.
TEST(AdamW, ClipsToTheNormOfAllGradientsTogether) {
  Fixture of;
  of.options.weight_decay = 0.0;
  of.options.epsilon = 0.0;
  AdamW optimizer(of.parameters, of.options);
  of.set_gradients(3.0);
  EXPECT_NEAR(optimizer.step(0.01).item<double>(), 3.0 * std::sqrt(10.0), 1e-6);
  EXPECT_NEAR(of.parameters["matrix"][1][2].item<double>(), 0.99, 1e-6);
  EXPECT_NEAR(of.parameters["vector"][3].item<double>(), 0.99, 1e-6);
  EXPECT_EQ(of.parameters["frozen"][0].item<double>(), 1.0);
  // beta1 0.9, and 1 / sqrt(10) of a gradient clipped to norm 1.
  EXPECT_NEAR(optimizer.state().at("first_moment.vector")[0].item<double>(), 0.1 / std::sqrt(10.0),
              1e-6);
}

TEST(AdamW, AGradientThatIsNotFiniteChangesNothing) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    Fixture of;
    AdamW optimizer(of.parameters, of.options);
    of.set_gradients(1.0);
    optimizer.step(0.01);
    std::map<std::string, at::Tensor> before = optimizer.state();
    for (auto& [name, tensor] : before) tensor = tensor.clone();
    const at::Tensor matrix = of.parameters["matrix"].detach().clone();
    of.set_gradients(1.0);
    of.parameters["vector"].mutable_grad()[1] = bad;
    EXPECT_FALSE(std::isfinite(optimizer.step(0.01).item<double>()));
    EXPECT_TRUE(at::equal(of.parameters["matrix"], matrix));
    for (const auto& [name, tensor] : optimizer.state()) {
      EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
    }
    EXPECT_FALSE(of.parameters["vector"].grad().defined());
  }
}

// The mean of both ranks' gradients is 3 everywhere.
TEST(AdamW, RanksShareTheMomentsAndAgreeOnTheParameters) {
  dist::run_as_threads(2, [](dist::Group& group) {
    Fixture of;
    of.options.weight_decay = 0.0;
    of.options.epsilon = 0.0;
    AdamW optimizer(of.parameters, of.options, group);
    of.set_gradients(group.is_first() ? 1.0 : 5.0);
    EXPECT_NEAR(optimizer.step(0.01).item<double>(), 3.0 * std::sqrt(10.0), 1e-6);
    for (const char* const name : {"matrix", "vector"}) {
      const at::Tensor error = (of.parameters[name].detach() - 0.99).abs().max();
      EXPECT_LT(error.item<double>(), 1e-6) << name;
      EXPECT_FALSE(of.parameters[name].grad().defined());
    }
    const auto mine = optimizer.state();
    EXPECT_EQ(mine.contains("first_moment.matrix"), group.is_first()) << "the larger one";
    EXPECT_EQ(mine.contains("second_moment.vector"), !group.is_first());

    const auto whole = optimizer.whole_state();
    EXPECT_EQ(whole.size(), group.is_first() ? 6u : 0u);
    for (const auto& [name, tensor] : whole) {
      if (name.starts_with("steps.")) {
        EXPECT_EQ(tensor.item<float>(), 1.0f) << name;
      }
      if (!name.starts_with("first_moment.")) continue;
      EXPECT_NEAR(tensor.max().item<double>(), 0.1 / std::sqrt(10.0), 1e-6) << name;
    }
  });
}

TEST(AdamW, AGradientThatIsNotFiniteOnOneRankChangesNothingOnAny) {
  dist::run_as_threads(2, [](dist::Group& group) {
    Fixture of;
    AdamW optimizer(of.parameters, of.options, group);
    of.set_gradients(group.is_first() ? std::nan("") : 1.0);
    EXPECT_FALSE(std::isfinite(optimizer.step(0.01).item<double>()));
    EXPECT_TRUE(at::equal(of.parameters["matrix"], at::ones({2, 3})));
    EXPECT_TRUE(at::equal(of.parameters["vector"], at::ones({4})));
    EXPECT_EQ(optimizer.state().at("steps.matrix").item<float>(), 0.0f);
  });
}

}  // namespace
}  // namespace dmc::train

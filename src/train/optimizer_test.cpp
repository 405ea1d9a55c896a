#include "train/optimizer.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <limits>

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

}  // namespace
}  // namespace dmc::train

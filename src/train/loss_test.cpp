#include "train/loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/tiny_models.h"

namespace dmc::train {
namespace {

constexpr int64_t kTokens = 7;

// A tiny random model in f64, so that differences of losses say something about gradients.
nn::Decoder exact_model(uint64_t seed) {
  model::ModelConfig config = nn::tiny_configs().front();
  config.num_layers = 1;
  nn::Decoder model = nn::Decoder::create(config, seed);
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, parameter] : model.parameters()) {
    parameters[name] = (parameter.to(at::kDouble) * 10.0).set_requires_grad(true);
  }
  return {config, parameters};
}

at::Tensor random_hidden(uint64_t seed) {
  at::Generator generator = nn::generator(seed);
  return at::randn({kTokens, nn::tiny_configs().front().hidden_size}, generator, at::kDouble);
}

at::Tensor targets() { return at::tensor({3, 1, 4, 1, 5, 9, 2}, at::kLong); }

struct Pupil {
  nn::Decoder model = exact_model(1), teacher = exact_model(2);
  at::Tensor hidden = random_hidden(3);
  Distillation distillation;

  // `name`: of a divergence; empty: none.
  Pupil(const std::string& name, double weight) {
    if (name.empty()) return;
    distillation = {find_divergence(name), weight, &teacher, random_hidden(4)};
  }
  TokenLoss backward(int64_t logits_at_once = kLogitsAtOnce) const {
    for (const auto& [name, parameter] : model.parameters()) parameter.mutable_grad().reset();
    return head_backward(model, hidden, targets(), distillation, logits_at_once);
  }
  double total(const TokenLoss& loss) const {
    return distillation.weight * loss.divergence.item<double>() +
           (1.0 - distillation.weight) * loss.language_model.item<double>();
  }
  at::Tensor head_gradient() const {
    return model.parameter(model.layout().head.weight).grad().clone();
  }
};

struct Case {
  const char* name;
  const char* divergence;
  double weight;
};

class HeadBackward : public testing::TestWithParam<Case> {};

TEST_P(HeadBackward, GradientOfHiddenStatesIsTheNumericOne) {
  Pupil pupil(GetParam().divergence, GetParam().weight);
  const at::Tensor gradient = pupil.backward().hidden_grad_ND;
  constexpr double kStep = 1e-6;
  for (int64_t token = 0; token < kTokens; ++token) {
    for (const int64_t channel : {0, 17, 47}) {
      const auto moved = [&](double change) {
        const at::Tensor hidden = pupil.hidden;
        pupil.hidden = hidden.clone();
        pupil.hidden[token][channel] += change;
        const double loss = pupil.total(pupil.backward());
        pupil.hidden = hidden;
        return loss;
      };
      EXPECT_NEAR(gradient[token][channel].item<double>(),
                  (moved(kStep) - moved(-kStep)) / (2 * kStep), 1e-8)
          << "token " << token << ", channel " << channel;
    }
  }
}

TEST_P(HeadBackward, ChunksAddUpToTheWhole) {
  const Pupil pupil(GetParam().divergence, GetParam().weight);
  const TokenLoss whole = pupil.backward();
  const at::Tensor head = pupil.head_gradient();
  for (const int64_t tokens : {1, 2, 3, 6}) {
    const TokenLoss chunked = pupil.backward(tokens * pupil.model.config().vocab_size);
    EXPECT_NEAR(chunked.language_model.item<double>(), whole.language_model.item<double>(), 1e-12);
    EXPECT_NEAR(chunked.divergence.item<double>(), whole.divergence.item<double>(), 1e-12);
    EXPECT_TRUE(at::allclose(chunked.hidden_grad_ND, whole.hidden_grad_ND, 1e-10, 1e-12));
    EXPECT_TRUE(at::allclose(pupil.head_gradient(), head, 1e-10, 1e-12));
  }
}

TEST_P(HeadBackward, LanguageModelLossIsCrossEntropy) {
  const Pupil pupil(GetParam().divergence, GetParam().weight);
  const at::Tensor logits = pupil.model.logits(pupil.hidden);
  EXPECT_NEAR(pupil.backward().language_model.item<double>(),
              at::cross_entropy_loss(logits, targets()).item<double>(), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Losses, HeadBackward,
                         testing::Values(Case{"Text", "", 0.0}, Case{"Forward", "forward", 1.0},
                                         Case{"Reverse", "reverse", 1.0},
                                         Case{"Mixed", "forward", 0.3}),
                         [](const auto& test) { return std::string(test.param.name); });

// By hand: p = (1/2, 1/2) is the teacher, q = (1/4, 3/4) the student.
TEST(Divergence, IsWhatItsNameSays) {
  const at::Tensor teacher = at::tensor({0.5, 0.5}, at::kDouble).log().unsqueeze(0);
  const at::Tensor student = at::tensor({0.25, 0.75}, at::kDouble).log().unsqueeze(0);
  EXPECT_NEAR(find_divergence("forward")->of(student, teacher).item<double>(),
              0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3.0), 1e-12);
  EXPECT_NEAR(find_divergence("reverse")->of(student, teacher).item<double>(),
              0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-12);
}

TEST(Divergence, OfEqualsIsZeroAndSoIsItsGradient) {
  for (const Divergence& divergence : divergences()) {
    Pupil pupil(std::string(divergence.name), 1.0);
    pupil.distillation.teacher = &pupil.model;
    pupil.distillation.teacher_hidden_ND = pupil.hidden;
    const TokenLoss loss = pupil.backward();
    EXPECT_NEAR(loss.divergence.item<double>(), 0.0, 1e-12) << divergence.name;
    EXPECT_LT(loss.hidden_grad_ND.abs().max().item<double>(), 1e-12) << divergence.name;
  }
}

}  // namespace
}  // namespace dmc::train

// Policies and knobs on the models that come with the program, prompt in one pass against token by
// token.
#include "runtime/decoder_runner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace dmc::runtime {
namespace {

std::shared_ptr<const Model> builtin_4x() {
  static const auto model = load_model("models/builtin-4x", DType::kF32);
  return model;
}

// The same weights read as a model of a method with a delay.
std::shared_ptr<const Model> delayed(const std::string& method, int64_t delay) {
  auto model = std::const_pointer_cast<Model>(load_model("models/builtin-4x", DType::kF32));
  model->config.dmc->method = method;
  model->config.dmc->delay = delay;
  return model;
}
constexpr const char* kDelayed[] = {"dms", "dmc-delayed"};

std::vector<int32_t> random_text(int64_t tokens, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> text;
  while (static_cast<int64_t>(text.size()) < tokens) {
    text.push_back(static_cast<int32_t>(rng.below(2048)));
  }
  return text;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-3) << "token " << i;
}

void expect_same_prompt_in_one_pass_and_token_by_token(const std::string& method) {
  for (int64_t window : {0, 16, 300}) {
    const std::vector<int32_t> text = random_text(200, 3);
    DecoderRunner runner(delayed(method, window), {.chunk = 64});
    EXPECT_EQ(runner.policy().name, method);
    const auto whole = runner.add_sequence(), steps = runner.add_sequence();
    const std::vector<float> a = engine::prefill(runner, whole, text);
    std::vector<float> b;
    for (const int32_t& token : text)
      b = engine::decode(runner, std::span(&steps, 1), std::span(&token, 1));
    expect_near(a, b);
    EXPECT_EQ(runner.cache().slots(whole), runner.cache().slots(steps)) << "window " << window;
    if (window == 16) {
      EXPECT_GT(runner.compression_ratio(whole), 1.5);
    }
    if (window == 300) {
      EXPECT_EQ(runner.compression_ratio(whole), 1.0) << "nobody is so far back";
    }
  }
}

TEST(DecoderRunner, ADelayedPolicysPromptIsTheSameInOnePassAndTokenByToken) {
  for (const char* method : kDelayed) expect_same_prompt_in_one_pass_and_token_by_token(method);
}

TEST(DecoderRunner, TheBiasMovesTheRatio) {
  const std::vector<int32_t> text = random_text(512, 4);
  double last = 0.0;
  for (double bias : {-80.0, -1.0, 0.0, 1.0, 20.0}) {
    DecoderRunner runner(builtin_4x(), {.compression = {.decision_bias = bias}});
    const auto sequence = runner.add_sequence();
    engine::prefill(runner, sequence, text);
    EXPECT_GT(runner.compression_ratio(sequence), last) << "bias " << bias;
    last = runner.compression_ratio(sequence);
    if (bias == -80.0) {
      EXPECT_EQ(last, 1.0);
    }
  }
}

// Whatever the model would do by itself, in any order of prompt and decoding.
TEST(DecoderRunner, HoldsARatio) {
  for (double wanted : {1.5, 2.0, 3.0, 6.0}) {
    for (const auto& model : {builtin_4x(), delayed("dms", 8), delayed("dmc-delayed", 8)}) {
      DecoderRunner runner(model, {.compression = {.cr = wanted}});
      const auto sequence = runner.add_sequence();
      engine::prefill(runner, sequence, random_text(1200, 5));
      for (const int32_t& token : random_text(300, 6)) {
        engine::decode(runner, std::span(&sequence, 1), std::span(&token, 1));
      }
      EXPECT_NEAR(1500 / runner.compression_ratio(sequence), 1500 / wanted, 50.0)
          << model->config.dmc->method << " at " << wanted;
    }
  }
}

TEST(DecoderRunner, BudgetsAreHeldByEveryPolicyThatHasOne) {
  const std::vector<int32_t> text = random_text(400, 7);
  for (const policy::Policy& policy : policy::policies()) {
    if (policy.least_budget == 0) continue;
    const std::string name(policy.name);
    DecoderRunner fixed(builtin_4x(), {.compression = {.policy = name, .budget = 100}});
    DecoderRunner share(builtin_4x(), {.compression = {.policy = name, .cr = 2.5}});
    const auto a = fixed.add_sequence(), b = share.add_sequence();
    engine::prefill(fixed, a, text);
    engine::prefill(share, b, text);
    EXPECT_EQ(fixed.cache().slots(a, 0, 0), 100) << name;
    EXPECT_EQ(share.cache().slots(b, 4, 1), 160) << name;
  }
}

}  // namespace
}  // namespace dmc::runtime

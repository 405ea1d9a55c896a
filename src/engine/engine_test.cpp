#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "engine/generate.h"

namespace dmc::engine {
namespace {

std::map<int32_t, int> draw(const std::vector<float>& logits, SamplingOptions options, int count) {
  std::map<int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[sample(logits, options, i)];
  return seen;
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheLowerIdOfATie) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2, 3}, {.temperature = 0}, 0), 1);
}

// 20,000 draws of a known distribution: each frequency within five standard deviations.
TEST(Sampler, FollowsTheSoftmax) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -1.0f};
  for (double temperature : {0.5, 1.0, 2.0}) {
    double total = 0.0;
    for (float x : logits) total += std::exp(x / temperature);
    auto seen = draw(logits, {.temperature = temperature, .top_p = 1.0, .seed = 7}, 20000);
    for (int32_t id = 0; id < 4; ++id) {
      const double p = std::exp(logits[static_cast<size_t>(id)] / temperature) / total;
      EXPECT_NEAR(seen[id] / 20000.0, p, 5 * std::sqrt(p * (1 - p) / 20000.0)) << "id " << id;
    }
  }
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_k = 2, .top_p = 1}, 2000).size(), 2u);
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 0.79}, 2000).size(), 2u);
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 0.01}, 2000).size(), 1u);
}

TEST(Sampler, MinPDropsWhatIsFarBehindTheLikeliest) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  const SamplingOptions options{.temperature = 1, .top_p = 1, .min_p = 0.25};
  const auto seen = draw(logits, options, 5000);
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_NEAR(seen.at(0) / 5000.0, 0.5 / 0.95, 0.04);
}

TEST(Sampler, ChoicesOfOneRequestHaveSeedsOfTheirOwn) {
  EXPECT_EQ(seed_of_choice(42, 0), 42u);
  EXPECT_NE(seed_of_choice(42, 1), seed_of_choice(42, 2));
  EXPECT_NE(seed_of_choice(42, 1), seed_of_choice(43, 1));
}

TEST(Sampler, LogprobsAreThoseOfTheSoftmaxAndTheirTopIsInOrder) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -1.0f, 1.0f};
  double total = 0.0;
  for (float x : logits) total += std::exp(static_cast<double>(x));
  const Logprobs of = logprobs_of(logits, 4, 3);
  EXPECT_NEAR(of.token.logprob, 1.0 - std::log(total), 1e-6);
  EXPECT_EQ(of.rank, 2);
  ASSERT_EQ(of.top.size(), 3u);
  EXPECT_EQ(of.top[0].token, 2);
  EXPECT_EQ(of.top[1].token, 1) << "of equals the lower id";
  EXPECT_EQ(of.top[2].logprob, of.token.logprob) << "the same token has the same number";
  EXPECT_EQ(logprobs_of(logits, 0, 99).top.size(), 5u);
  EXPECT_TRUE(logprobs_of(logits, 0, 0).top.empty());
}

TEST(Sampler, RefusesNonsense) {
  EXPECT_THROW(sample(std::vector<float>{1.0f, std::nanf("")}, {}, 0), Error);
  EXPECT_THROW(check_sampling_options({.temperature = -1}), Error);
  EXPECT_THROW(check_sampling_options({.top_p = 0}), Error);
  EXPECT_THROW(check_sampling_options({.min_p = 1.5}), Error);
  EXPECT_THROW(check_sampling_options({.temperature = std::numeric_limits<double>::quiet_NaN()}),
               Error);
}

// A model that always wants the token after the one it saw.
class CountingRunner : public ModelRunner {
 public:
  int64_t vocab_size() const override { return 10; }
  int64_t max_positions() const override { return 8; }
  SequenceId add_sequence() override { return 1; }
  SequenceId fork(SequenceId) override { return 2; }
  void release(SequenceId) override {}
  int64_t length(SequenceId) const override { return length_; }
  StepResult step(std::span<const StepItem> items) override {
    length_ += std::ssize(items[0].tokens);
    return {after(items[0].tokens.back())};
  }

 private:
  int64_t length_ = 0;

  static std::vector<float> after(int32_t token) {
    std::vector<float> logits(10, 0.0f);
    logits[static_cast<size_t>((token + 1) % 10)] = 1.0f;
    return logits;
  }
};

Generation run(std::vector<int32_t> prompt, GenerateOptions options, bool cancel = false) {
  CountingRunner runner;
  options.sampling.temperature = 0.0;
  Generation result = generate(
      runner, runner.add_sequence(), prompt, options, [](int32_t) {}, [&] { return cancel; });
  EXPECT_LE(runner.length(1), runner.max_positions());
  return result;
}

TEST(Generate, StopsForEachReason) {
  Generation g = run({1}, {.max_tokens = 3});
  EXPECT_EQ(g.tokens, (std::vector<int32_t>{2, 3, 4}));
  EXPECT_EQ(g.stop, StopReason::kLength);
  g = run({1}, {.max_tokens = 9, .stop_ids = {4}});
  EXPECT_EQ(g.tokens, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(g.stop, StopReason::kEndOfText);
  g = run({0, 1}, {.max_tokens = 100});
  EXPECT_EQ(g.tokens.size(), 7u) << "six more fill the context, and their last prediction";
  EXPECT_EQ(g.stop, StopReason::kContextFull);
  EXPECT_EQ(run({0, 1}, {.max_tokens = 7}).stop, StopReason::kLength) << "all that was asked for";
  g = run({1}, {.max_tokens = 9}, /*cancel=*/true);
  EXPECT_EQ(g.tokens.size(), 1u);
  EXPECT_EQ(g.stop, StopReason::kCancelled);
}

TEST(Generate, RefusesPromptsThatDoNotFit) {
  EXPECT_THROW(run({}, {}), Error);
  try {
    run(std::vector<int32_t>(9, 1), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("9 tokens, the model's context is 8"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace dmc::engine

#include "engine/logit_rules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace dmc::engine {
namespace {

const std::vector<float> kLogits = {2.0f, -1.0f, 0.5f, 3.0f};

std::vector<float> applied(RuledLogits& rules) {
  const auto result = rules.apply(kLogits);
  return {result.begin(), result.end()};
}

TEST(LogitRules, WithoutRulesTheLogitsAreNotEvenCopied) {
  RuledLogits rules({}, {}, {0});
  rules.written(1);
  EXPECT_EQ(rules.apply(kLogits).data(), kLogits.data());
}

// The arithmetic of the OpenAI API reference: logit - count * frequency - (count > 0) * presence;
// the prompt does not count.
TEST(LogitRules, PresenceAndFrequencyCountTheText) {
  const std::vector<int32_t> prompt = {0, 0, 1};
  RuledLogits rules({.presence_penalty = 0.5, .frequency_penalty = 0.25}, prompt, {});
  EXPECT_EQ(applied(rules), kLogits);
  for (int32_t token : {3, 3, 1}) rules.written(token);
  EXPECT_EQ(applied(rules), (std::vector<float>{2.0f, -1.75f, 0.5f, 2.0f}));
}

TEST(LogitRules, RepetitionPushesTokensOfPromptAndTextTowardsUnlikely) {
  const std::vector<int32_t> prompt = {1};
  RuledLogits rules({.repetition_penalty = 2.0}, prompt, {});
  rules.written(3);
  EXPECT_EQ(applied(rules), (std::vector<float>{2.0f, -2.0f, 0.5f, 1.5f}));
}

TEST(LogitRules, StopTokensWaitForTheLeastLengthAndBiasIsAdded) {
  RuledLogits rules({.bias = {{2, 10.0f}}, .min_tokens = 1}, {}, {3, 77});
  EXPECT_EQ(applied(rules), (std::vector<float>{2.0f, -1.0f, 10.5f, -INFINITY}));
  rules.written(2);
  EXPECT_EQ(applied(rules), (std::vector<float>{2.0f, -1.0f, 10.5f, 3.0f}));
}

TEST(LogitRules, RefusesWhatIsOutOfRange) {
  const auto field = [](const LogitRules& rules) {
    try {
      check_logit_rules(rules, 10);
    } catch (const Error& error) {
      return error.field();
    }
    return std::string();
  };
  EXPECT_EQ(field({}), "");
  EXPECT_EQ(field({.repetition_penalty = 0}), "repetition_penalty");
  EXPECT_EQ(field({.presence_penalty = NAN}), "presence_penalty");
  EXPECT_EQ(field({.frequency_penalty = 2.5}), "frequency_penalty");
  EXPECT_EQ(field({.bias = {{10, 1.0f}}}), "logit_bias");
  EXPECT_EQ(field({.bias = {{1, 101.0f}}}), "logit_bias");
}

}  // namespace
}  // namespace dmc::engine

// Needles in haystacks, and agreement between two caches.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "eval/tasks/agreement.h"
#include "eval/tasks/answer_length.h"
#include "eval/tasks/multi_turn.h"
#include "eval/tasks/needle.h"
#include "eval/testing.h"

namespace dmc::eval {
namespace {

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

TEST(NeedlePrompt, HoldsTheFactAtItsDepthAndAsksForItLast) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "Sentence number " + std::to_string(i) + " is here. ";
  const std::vector<int32_t> haystack = tokenizer().encode(text);
  for (int keys : {1, 4}) {
    for (double depth : {0.0, 0.3, 0.5, 1.0}) {
      Rng rng(static_cast<uint64_t>(100 * depth));
      const NeedlePrompt prompt = make_needle_prompt(tokenizer(), haystack, 700, depth, keys, rng);
      EXPECT_EQ(prompt.tokens.size() + prompt.answer.size(), 700u);
      const std::string said = tokenizer().decode(prompt.tokens);
      const std::string question = said.substr(said.rfind('\n') + 1);
      const std::string fact = question + tokenizer().decode(prompt.answer) + ".";
      const size_t at = said.find(fact);
      ASSERT_NE(at, std::string::npos) << said;
      EXPECT_EQ(said.find(fact, at + 1), std::string::npos) << "told once";
      EXPECT_NEAR(static_cast<double>(at) / static_cast<double>(said.size()), depth, 0.12);
      EXPECT_TRUE(at <= 1 || said[at - 2] == '.') << "between two sentences";
      int facts = 0;
      for (size_t i = said.find("The secret"); i < said.rfind('\n');
           i = said.find("The secret", i + 1)) {
        ++facts;
      }
      EXPECT_EQ(facts, keys);
    }
  }
  Rng rng(1);
  EXPECT_THROW(make_needle_prompt(tokenizer(), haystack, 30, 0.5, 4, rng), Error);
}

TEST(KlDivergence, IsWhatTheFormulaSays) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> q = {std::log(2.0f), std::log(1.0f), std::log(1.0f)};
  EXPECT_NEAR(kl_divergence(p, q), 0.0, 1e-7) << "logits are known up to a constant";
  const std::vector<float> r = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  EXPECT_NEAR(kl_divergence(p, r), 0.5 * std::log(2.0) - 0.25 * std::log(2.0), 1e-6);
  const std::vector<float> certain = {0.0f, -INFINITY}, open = {0.0f, 0.0f};
  EXPECT_NEAR(kl_divergence(certain, open), std::log(2.0), 1e-6);
}

TEST(RunAgreement, AModelAgreesWithItself) {
  HistoryRunner runner(50, 400), reference(50, 400);
  Rng rng(3);
  text::EvalWindows windows;
  for (size_t length : {300, 7}) {
    windows.tokens.emplace_back();
    for (size_t i = 0; i < length; ++i) {
      windows.tokens.back().push_back(static_cast<int32_t>(rng.below(50)));
    }
  }
  TaskInput input{
      .runner = runner, .tokenizer = tokenizer(), .text = &windows, .reference = &reference};
  const TaskScore score = run_agreement(input);
  EXPECT_EQ(score.items, 307);
  EXPECT_EQ(score.metrics[1].name, "kl_max");
  EXPECT_EQ(score.metrics[1].value, 0.0);
  EXPECT_EQ(score.metrics[2].value, 1.0);
  HistoryRunner wider(51, 400);
  input.reference = &wider;
  EXPECT_THROW(run_agreement(input), Error);
}

TEST(RunMultiTurn, KeptAndRebuiltAgreeWithoutCompression) {
  HistoryRunner runner(50, 400);
  Rng rng(4);
  text::EvalWindows windows;
  windows.tokens.emplace_back();
  for (size_t i = 0; i < 330; ++i) {
    windows.tokens.back().push_back(static_cast<int32_t>(rng.below(50)));
  }
  const TaskInput input{.runner = runner, .tokenizer = tokenizer(), .text = &windows};
  const TaskScore score = run_multi_turn(input);
  // The fake's logits depend on all tokens in their order, so equal means every token came in once.
  EXPECT_EQ(score.metrics[0].value, score.metrics[2].value) << "loss";
  EXPECT_EQ(score.items, 8 * 21) << "turns of 41 tokens, of which 20 ask";
  ASSERT_EQ(score.grids.size(), 1u);
  EXPECT_EQ(score.grids[0].values.size(), kTurns);
  for (const auto& row : score.grids[0].values) EXPECT_EQ(row[0], row[1]);
  EXPECT_EQ(runner.sequences(), 0u);
  windows.tokens = {{1, 2, 3}};
  EXPECT_THROW(run_multi_turn(input), Error);
}

TEST(RepeatedShare, CountsRunsThatStoodBefore) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 20; ++i) tokens.push_back(i);
  EXPECT_EQ(repeated_share(tokens), 0.0);
  for (int32_t i = 0; i < 20; ++i) tokens.push_back(i);
  EXPECT_NEAR(repeated_share(tokens), 13.0 / 40.0, 1e-12) << "runs that lie in the second half";
  EXPECT_GT(repeated_share(std::vector<int32_t>(100, 7)), 0.9);
  EXPECT_EQ(repeated_share({}), 0.0);
}

TEST(RunAnswerLength, ComparesWithTheReference) {
  HistoryRunner runner(50, 600), reference(50, 600);
  text::EvalWindows windows;
  Rng rng(6);
  for (int n = 0; n < 3; ++n) {
    windows.tokens.emplace_back();
    for (size_t i = 0; i < 100; ++i) {
      windows.tokens.back().push_back(static_cast<int32_t>(rng.below(50)));
    }
  }
  const TaskInput input{.runner = runner,
                        .tokenizer = tokenizer(),
                        .end_of_text = {7},
                        .text = &windows,
                        .reference = &reference};
  const TaskScore score = run_answer_length(input);
  EXPECT_EQ(score.items, 3);
  EXPECT_EQ(score.metrics[0].value, score.metrics[1].value) << "the same fake on both sides";
  EXPECT_GT(score.metrics[1].value, 1.0);
  EXPECT_EQ(runner.sequences(), 0u);
}

}  // namespace
}  // namespace dmc::eval

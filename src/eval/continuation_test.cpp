#include "eval/continuation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "eval/testing.h"

namespace dmc::eval {
namespace {

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

// The meaning of a score, without forks or shared beginnings: the whole text from its first token.
LogLikelihood slow_score(HistoryRunner& runner, const std::string& context,
                         const std::string& continuation) {
  const TokenPair pair = encode_pair(tokenizer(), context, continuation);
  std::vector<int32_t> tokens = pair.context;
  tokens.insert(tokens.end(), pair.continuation.begin(), pair.continuation.end());
  const auto limit = static_cast<size_t>(runner.max_positions()) + 1;
  if (tokens.size() > limit) tokens.erase(tokens.begin(), tokens.end() - static_cast<long>(limit));
  const auto sequence = Sequence::add(runner);
  const std::vector<float> logits =
      engine::prefill_logits(runner, sequence.id(), std::span(tokens).first(tokens.size() - 1));
  const size_t row = static_cast<size_t>(runner.vocab_size());
  const size_t skipped = tokens.size() - 1 - pair.continuation.size();
  return rate_run(std::span(logits).subspan(skipped * row), pair.continuation);
}

TEST(EncodePair, MovesWhiteSpaceToTheContinuation) {
  const TokenPair pair = encode_pair(tokenizer(), "def read \n", "x");
  EXPECT_EQ(tokenizer().decode(pair.context), "def read");
  EXPECT_EQ(tokenizer().decode(pair.continuation), " \nx");
}

TEST(ContinuationScorer, ForksAndSharedBeginningsChangeNothing) {
  HistoryRunner runner(tokenizer().vocab_size(), 60);
  {
    ContinuationScorer scorer(runner, tokenizer());
    const std::string beginning = "import os\nimport sys\n\n";
    const std::vector<std::string> endings = {" self", " None, return value", "x", " \n\n  y + 1"};
    for (const std::string context : {"def f(a):", "\nclass A:", "class  ", "    if x "}) {
      for (const std::string& shared : {std::string(), beginning}) {
        const auto ratings = scorer.score(shared + context, endings, shared);
        for (size_t i = 0; i < endings.size(); ++i) {
          const LogLikelihood expected = slow_score(runner, shared + context, endings[i]);
          EXPECT_NEAR(ratings[i].log_prob, expected.log_prob, 1e-9) << context << endings[i];
          EXPECT_EQ(ratings[i].greedy, expected.greedy);
        }
      }
    }
    EXPECT_NEAR(scorer.compression_ratio(), HistoryRunner::kRatio, 1e-9);
  }
  EXPECT_EQ(runner.sequences(), 0u) << "every sequence was given back";
}

TEST(ContinuationScorer, TooLongTextsLoseTheirBeginning) {
  HistoryRunner runner(tokenizer().vocab_size(), 12);
  ContinuationScorer scorer(runner, tokenizer());
  const std::string context = "one two three four five six seven eight nine ten eleven";
  const std::vector<std::string> endings = {" a", " import os, sys, re"};
  const auto ratings = scorer.score(context, endings, "one two");
  for (size_t i = 0; i < endings.size(); ++i) {
    EXPECT_NEAR(ratings[i].log_prob, slow_score(runner, context, endings[i]).log_prob, 1e-9);
  }
}

TEST(ContinuationScorer, RefusesWhatHasNoScore) {
  HistoryRunner runner(tokenizer().vocab_size(), 8);
  ContinuationScorer scorer(runner, tokenizer());
  EXPECT_THROW(scorer.score("", {" a"}), Error);
  EXPECT_THROW(scorer.score("a", {""}), Error);
  EXPECT_THROW(scorer.score("a", {" one two three four five six seven eight nine ten"}), Error);
}

TEST(Rate, IsTheLogSoftmaxAndTheFirstOfTheLargest) {
  const std::vector<float> logits = {0.0f, std::log(3.0f), -INFINITY, std::log(3.0f), 0.0f};
  EXPECT_NEAR(rate(logits, 1).log_prob, std::log(3.0 / 8.0), 1e-6);
  EXPECT_TRUE(rate(logits, 1).greedy);
  EXPECT_FALSE(rate(logits, 3).greedy);
  EXPECT_EQ(rate(logits, 2).log_prob, -INFINITY);
  EXPECT_THROW(rate(std::vector<float>{0.0f, NAN}, 0), Error);
}

}  // namespace
}  // namespace dmc::eval

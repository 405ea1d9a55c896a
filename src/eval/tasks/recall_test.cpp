#include "eval/tasks/recall.h"

#include <gtest/gtest.h>

#include <cctype>

#include "base/error.h"
#include "base/rng.h"
#include "eval/cache_use.h"
#include "eval/log_probs.h"
#include "eval/testing.h"

namespace dmc::eval {
namespace {

constexpr int64_t kEnd = 0;
const std::vector<int64_t> kEndOfText = {kEnd};

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

// The definition, word by word: for every identifier, all words of its document before it.
std::vector<Recall> slow_recalls(const std::vector<int32_t>& tokens, size_t distance) {
  std::string text;  // one byte of document end where a document ends
  std::vector<size_t> token_of;
  for (size_t i = 0; i < tokens.size(); ++i) {
    text += tokens[i] == kEnd ? "\x01" : std::string(tokenizer().token_bytes(tokens[i]));
    token_of.resize(text.size(), i);
  }
  const auto word_at = [&](size_t at) {
    const auto in_word = [&](size_t i) { return std::isalnum(text[i]) != 0 || text[i] == '_'; };
    if (at > 0 && in_word(at - 1)) return std::string();
    size_t end = at;
    while (end < text.size() && in_word(end)) ++end;
    return text.substr(at, end - at);
  };
  std::vector<Recall> recalls;
  for (size_t at = 0; at < text.size(); ++at) {
    const std::string word = word_at(at);
    if (word.size() < 5 || std::isdigit(word[0]) != 0) continue;
    bool seen = false, near = false;
    for (size_t before = 0; before < at; ++before) {
      if (text[before] == '\x01') seen = near = false;
      if (word_at(before) != word) continue;
      seen = true;
      near = near || token_of[before + word.size() - 1] + 1 + distance > token_of[at];
    }
    if (seen && !near) recalls.push_back({token_of[at], token_of[at + word.size() - 1] + 1});
  }
  return recalls;
}

TEST(FindRecalls, EqualsTheDefinitionOnRandomText) {
  const std::string words[] = {"return",       "x",      "load_checkpoint", " = ",    "(",
                               "self.weights", "\n    ", "9lives_left",     "config", " ",
                               "configure",    "_hidden"};
  size_t found = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Rng rng(seed);
    std::string text;
    for (int i = 0; i < 60; ++i) text += words[rng.below(std::size(words))] + " ";
    std::vector<int32_t> tokens = tokenizer().encode(text);
    tokens[rng.below(tokens.size())] = kEnd;
    for (size_t distance : {0, 5, 40}) {
      const auto fast = find_recalls(tokenizer(), tokens, distance, kEndOfText);
      const auto slow = slow_recalls(tokens, distance);
      ASSERT_EQ(fast.size(), slow.size()) << "seed " << seed << ", distance " << distance;
      for (size_t i = 0; i < fast.size(); ++i) {
        EXPECT_EQ(fast[i].first, slow[i].first) << "seed " << seed;
        EXPECT_EQ(fast[i].last, slow[i].last) << "seed " << seed;
      }
      found += fast.size();
    }
  }
  EXPECT_GT(found, 100u);
}

TEST(RunRecall, ScoresTheRecallsAndNoOtherToken) {
  std::string filler;
  for (int i = 0; i < 100; ++i) filler += "x = " + std::to_string(i) + "\n";
  std::vector<int32_t> window =
      tokenizer().encode("load_checkpoint(a)\n" + filler + "load_checkpoint(b)\n");
  const auto recalls = find_recalls(tokenizer(), window, 256, kEndOfText);
  ASSERT_EQ(recalls.size(), 1u);

  HistoryRunner runner(tokenizer().vocab_size(), 2000);
  const text::EvalWindows windows{{window}, {0}};
  const TaskInput input{
      .runner = runner, .tokenizer = tokenizer(), .end_of_text = kEndOfText, .text = &windows};
  const TaskScore score = run_recall(input);
  EXPECT_EQ(score.items, 1);

  const auto [first, last] = recalls[0];
  const auto expected_loss = [&](size_t begin) {
    const auto sequence = Sequence::add(runner);
    const auto logits = engine::prefill_logits(runner, sequence.id(),
                                               std::span(window).subspan(begin, last - 1 - begin));
    const size_t row = static_cast<size_t>(runner.vocab_size());
    const std::span rows = std::span(logits).last((last - first) * row);
    return -rate_run(rows, std::span(window).subspan(first, last - first)).log_prob /
           static_cast<double>(last - first);
  };
  EXPECT_NEAR(score.metrics[0].value, expected_loss(first - 256), 1e-9) << "local_loss";
  EXPECT_NEAR(score.metrics[1].value, expected_loss(0), 1e-9) << "loss";
  EXPECT_EQ(runner.sequences(), 0u);

  const text::EvalWindows nothing{{tokenizer().encode(filler)}, {0}};
  EXPECT_THROW(run_recall({.runner = runner, .tokenizer = tokenizer(), .text = &nothing}), Error);
}

}  // namespace
}  // namespace dmc::eval

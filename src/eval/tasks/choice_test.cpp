#include "eval/tasks/choice.h"

#include <gtest/gtest.h>

#include "eval/continuation.h"
#include "eval/tasks/statistics.h"
#include "eval/tasks/summary.h"
#include "eval/testing.h"

namespace dmc::eval {
namespace {

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

const Metric& metric(const TaskScore& score, const std::string& name) {
  return *std::ranges::find(score.metrics, name, &Metric::name);
}

// Four items whose gold is what the runner prefers, by sum and by sum per character.
TEST(ScoreChoices, CountsTheLikeliestEnding) {
  HistoryRunner runner(tokenizer().vocab_size(), 200);
  const std::vector<std::string> choices = {"a", "b + c", "return None", "import os, sys"};
  ContinuationScorer scorer(runner, tokenizer());
  std::vector<ChoiceItem> items;
  double acc = 0, acc_norm = 0;
  for (const std::string context : {"one", "two", "three", "four", "five", "six"}) {
    items.push_back(make_choice_item(context, choices, items.size() % 4));
    const ChoiceItem& item = items.back();
    const auto ratings = scorer.score(context, item.endings);
    const auto wins = [&](auto score_of) {
      for (size_t i = 0; i < ratings.size(); ++i) {
        if (score_of(i) > score_of(item.gold)) return 0.0;
      }
      return 1.0;
    };
    acc += wins([&](size_t i) { return ratings[i].log_prob; }) / 6;
    acc_norm += wins([&](size_t i) {
                  return ratings[i].log_prob / static_cast<double>(choices[i].size());
                }) /
                6;
  }
  const TaskScore score = score_choices({.runner = runner, .tokenizer = tokenizer()}, items);
  EXPECT_EQ(score.items, 6);
  EXPECT_NEAR(metric(score, "acc").value, acc, 1e-12);
  EXPECT_NEAR(metric(score, "acc_norm").value, acc_norm, 1e-12);
  EXPECT_NE(acc, acc_norm) << "the test needs lengths to matter";
  EXPECT_NEAR(score.compression_ratio, HistoryRunner::kRatio, 1e-9);
}

TEST(ScoreChoices, TheLimitIsForEachSubject) {
  HistoryRunner runner(tokenizer().vocab_size(), 200);
  std::vector<ChoiceItem> items;
  for (const std::string subject : {"x", "y", "x", "x", "y"}) {
    items.push_back(make_choice_item("q", {"a", "b"}, 0));
    items.back().subject = subject;
  }
  const TaskInput input{.runner = runner, .tokenizer = tokenizer(), .limit = 2};
  EXPECT_EQ(score_choices(input, items).items, 4);
}

TEST(Statistics, MeansAndStandardErrors) {
  const Metric mean = mean_metric("m", {1, 0, 0, 1});
  EXPECT_DOUBLE_EQ(mean.value, 0.5);
  EXPECT_NEAR(mean.standard_error, std::sqrt((4 * 0.25 / 3) / 4), 1e-12);
  EXPECT_TRUE(std::isnan(mean_metric("m", {1}).standard_error));
  // One group is its mean; two are weighted by their sizes.
  EXPECT_NEAR(pooled_metric("m", {{1, 0, 0, 1}}).standard_error, mean.standard_error, 1e-12);
  EXPECT_DOUBLE_EQ(pooled_metric("m", {{1, 1, 1}, {0}}).value, 0.75);
}

TEST(Summary, CommonsenseAverageNeedsAllSix) {
  std::vector<NamedScore> scores;
  double expected = 0.0;
  for (const Task& task : tasks()) {
    if (!task.commonsense) continue;
    EXPECT_FALSE(commonsense_average(scores));
    const double value = 0.1 * static_cast<double>(scores.size());
    scores.push_back({std::string(task.name), {10, {{"acc", 0.0}, {"acc_norm", value}}, 4.0}});
    expected += value / 6;
  }
  EXPECT_EQ(scores.size(), 6u);
  EXPECT_NEAR(commonsense_average(scores).value(), expected, 1e-12);
  EXPECT_NEAR(to_json(scores)["cs_qa"].get<double>(), expected, 1e-12);
}

}  // namespace
}  // namespace dmc::eval

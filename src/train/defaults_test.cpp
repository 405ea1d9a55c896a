#include "train/defaults.h"

#include <gtest/gtest.h>

namespace dmc::train {
namespace {

const RunFacts kSmall{.parameters = 3e6, .context = 512, .text_tokens = 1e6};

TEST(Defaults, FitTheModel) {
  const Defaults run = choose_defaults(kSmall, {});
  EXPECT_EQ(run.length, 512);
  EXPECT_EQ(run.batch * run.length, 8192);
  EXPECT_EQ(run.reasons.size(), 3u);
  RunFacts large = kSmall;
  large.context = 131072;
  large.parameters = 7e9;
  const Defaults of_large = choose_defaults(large, {});
  EXPECT_EQ(of_large.length, 2048);
  EXPECT_LT(of_large.learning_rate, run.learning_rate / 4);
}

TEST(Defaults, OnlyWhatIsTrainedAlreadyNeedsCare) {
  RunFacts fresh = kSmall, adapter = kSmall;
  fresh.fresh = true;
  adapter.adapter_alone = true;
  const double trained = choose_defaults(kSmall, {}).learning_rate;
  EXPECT_GT(choose_defaults(fresh, {}).learning_rate, 5 * trained);
  EXPECT_GT(choose_defaults(adapter, {}).learning_rate, 5 * trained);
}

TEST(Defaults, DecisionsLearnInTimeWhateverTheModel) {
  RunFacts small = kSmall;
  small.hidden = 64;
  EXPECT_EQ(choose_defaults(small, {}).decision_scale, 0.0) << "nothing decides";
  small.ramp_steps = 400;
  RunFacts wide = small, hurried = small;
  wide.hidden = 4096;
  wide.parameters = 1e9;
  hurried.ramp_steps = 35;
  const auto logit_step = [](const RunFacts& facts) {
    const Defaults run = choose_defaults(facts, {});
    return run.decision_scale * run.learning_rate * static_cast<double>(facts.hidden);
  };
  EXPECT_NEAR(logit_step(wide), logit_step(small), 0.05 * logit_step(small));
  EXPECT_NEAR(logit_step(hurried), 4 * logit_step(small), 0.1 * logit_step(small));
  EXPECT_EQ(choose_defaults(small, {.decision_scale = 7.0}).decision_scale, 7.0);
}

TEST(Defaults, WhatIsGivenStaysAndTheRestFollowsIt) {
  const Defaults run = choose_defaults(kSmall, {.length = 128, .batch = 4, .learning_rate = 1e-2});
  EXPECT_EQ(run.length, 128);
  EXPECT_EQ(run.batch, 4);
  EXPECT_EQ(run.learning_rate, 1e-2);
  EXPECT_DOUBLE_EQ(run.final_learning_rate, 1e-3);
  EXPECT_TRUE(run.reasons.empty());
  EXPECT_LT(choose_defaults(kSmall, {.batch = 1}).learning_rate,
            choose_defaults(kSmall, {}).learning_rate)
      << "a small step has a noisy gradient";
}

TEST(Defaults, ABatchCanBeShared) {
  RunFacts facts = kSmall;
  facts.shares = 6;
  EXPECT_EQ(choose_defaults(facts, {}).batch, 18);
}

TEST(Defaults, LittleTextIsSaid) {
  const Defaults run = choose_defaults(kSmall, {});
  EXPECT_DOUBLE_EQ(epochs(kSmall, 1000, run), 8.192);
  EXPECT_EQ(data_warning(kSmall, 100, run), "");
  EXPECT_NE(data_warning(kSmall, 1000, run).find("8.2 times"), std::string::npos);
  RunFacts tiny = kSmall;
  tiny.text_tokens = 5000;
  EXPECT_NE(data_warning(tiny, 1, run).find("less than one step"), std::string::npos);
}

}  // namespace
}  // namespace dmc::train

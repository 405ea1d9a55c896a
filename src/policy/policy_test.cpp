#include "policy/policy.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dmc::policy {
namespace {

TEST(Policy, NamesAreUniqueAndFound) {
  for (const Policy& policy : policies()) EXPECT_EQ(find_policy(policy.name), &policy);
  EXPECT_EQ(find_policy("no-such-policy"), nullptr);
}

TEST(Policy, DenseNeverMerges) {
  const Policy* dense = find_policy("dense");
  EXPECT_EQ(dense->decide({.decision = 1000.0f, .constants = {.offset = 5.0f}}).decision,
            Decision::kAppend);
  EXPECT_FALSE(dense->needs_dmc_config);
}

TEST(Policy, DmcMergesAboveTheOffset) {
  const Policy* dmc = find_policy("dmc");
  const auto decision = [&](float logit) {
    return dmc->decide({.decision = logit, .constants = {.offset = 5.0f}}).decision;
  };
  EXPECT_EQ(decision(0.0f), Decision::kAppend) << "an untouched model merges nothing";
  EXPECT_EQ(decision(5.0f), Decision::kAppend);
  EXPECT_EQ(decision(5.001f), Decision::kMerge);
}

TEST(Policy, ImportanceHasAnOffsetOfItsOwnAndIsNever0) {
  for (const char* name : {"dmc", "dmc-delayed"}) {
    const Policy* policy = find_policy(name);
    const auto importance = [&](float logit, float offset) {
      return policy
          ->decide(
              {.importance = logit, .constants = {.offset = 5.0f, .importance_offset = offset}})
          .importance;
    };
    EXPECT_NEAR(importance(0.0f, 5.0f), 0.993307f, 1e-6) << name;
    EXPECT_NEAR(importance(0.0f, -4.0f), 0.0179862f, 1e-6) << name;
    EXPECT_GT(importance(-1e30f, 5.0f), 0.0f) << name;
  }
}

// One decision, read in three ways.
TEST(Policy, LearnedPoliciesDifferInWhatADecisionCarries) {
  const auto decision = [](const char* name) {
    return find_policy(name)->decide({.decision = 6.0f, .constants = {.offset = 5.0f}}).decision;
  };
  EXPECT_EQ(decision("dmc"), Decision::kMerge);
  EXPECT_EQ(decision("dms"), Decision::kDropPrevious);
  EXPECT_EQ(decision("dmc-delayed"), Decision::kMerge);
  for (const Policy& policy : policies()) {
    EXPECT_EQ(policy.delayed || policy.carry != Carry::kNothing, policy.needs_dmc_config);
    EXPECT_EQ(policy.drops_late(), policy.name == "dms");
  }
}

TEST(Policy, ABiasMovesLearnedDecisions) {
  for (const char* name : {"dmc", "dms", "dmc-delayed"}) {
    const Policy* policy = find_policy(name);
    const auto hides = [&](float logit, float bias) {
      return hides_previous(
          policy->decide({.decision = logit, .constants = {.offset = 5.0f}, .bias = bias})
              .decision);
    };
    EXPECT_TRUE(hides(4.5f, 1.0f)) << name;
    EXPECT_FALSE(hides(5.5f, -1.0f)) << name;
  }
}

TEST(Policy, SnapKvKeepsNeighboursOfWhatWasObserved) {
  std::vector<double> attention(20, 0.0);
  attention[3] = 1.0;
  attention[19] = 0.5;  // at the edge: fewer neighbours
  const Policy* snapkv = find_policy("snapkv");
  EXPECT_EQ(snapkv->keep_of_prompt(attention, 5), (std::vector<size_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(snapkv->keep_of_prompt(attention, 8), (std::vector<size_t>{1, 2, 3, 4, 5, 17, 18, 19}));
  EXPECT_EQ(snapkv->keep_of_prompt(attention, 99).size(), attention.size());
}

}  // namespace
}  // namespace dmc::policy

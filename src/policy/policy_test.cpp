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
  EXPECT_FALSE(dense->decide({1000.0f, 0.0f, 5.0f}).merge);
  EXPECT_FALSE(dense->needs_dmc_config);
}

TEST(Policy, DmcMergesAboveTheOffset) {
  const Policy* dmc = find_policy("dmc");
  EXPECT_FALSE(dmc->decide({0.0f, 0.0f, 5.0f}).merge) << "an untouched model merges nothing";
  EXPECT_FALSE(dmc->decide({5.0f, 0.0f, 5.0f}).merge);
  EXPECT_TRUE(dmc->decide({5.001f, 0.0f, 5.0f}).merge);
  EXPECT_NEAR(dmc->decide({0.0f, 0.0f, 5.0f}).importance, 0.993307f, 1e-6);
  EXPECT_GT(dmc->decide({0.0f, -1e30f, 5.0f}).importance, 0.0f) << "a weight is never 0";
}

TEST(Policy, ABiasMovesLearnedDecisions) {
  for (const char* name : {"dmc", "dms"}) {
    const Policy* policy = find_policy(name);
    EXPECT_TRUE(policy->decide({.decision = 4.5f, .offset = 5.0f, .bias = 1.0f}).merge) << name;
    EXPECT_FALSE(policy->decide({.decision = 5.5f, .offset = 5.0f, .bias = -1.0f}).merge);
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

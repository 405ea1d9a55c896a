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

}  // namespace
}  // namespace dmc::policy

#include "policy/schedule.h"

#include <gtest/gtest.h>

namespace dmc::policy {
namespace {

TEST(Schedule, FadeReachesZeroAfterFourFifths) {
  EXPECT_DOUBLE_EQ(fade(0, 100), 1.0);
  EXPECT_DOUBLE_EQ(fade(40, 100), 0.5);
  EXPECT_DOUBLE_EQ(fade(80, 100), 0.0);
  EXPECT_DOUBLE_EQ(fade(99, 100), 0.0);
}

TEST(Schedule, RampIsLinearFromOne) {
  EXPECT_DOUBLE_EQ(ramped_cr(0, 10, 4.0), 1.0);
  EXPECT_DOUBLE_EQ(ramped_cr(5, 10, 4.0), 2.5);
  EXPECT_DOUBLE_EQ(ramped_cr(10, 10, 4.0), 4.0);
  EXPECT_DOUBLE_EQ(ramped_cr(12, 10, 4.0), 4.0);
  EXPECT_DOUBLE_EQ(merge_fraction(1.0), 0.0);
  EXPECT_DOUBLE_EQ(merge_fraction(4.0), 0.75);
}

TEST(Schedule, CompressionWeightFollowsTheLag) {
  EXPECT_DOUBLE_EQ(adapted_weight(1.0, 0.1, 4.0, 4.0), 1.0);
  EXPECT_DOUBLE_EQ(adapted_weight(1.0, 0.1, 4.0, 2.0), 1.025);
  EXPECT_DOUBLE_EQ(adapted_weight(1.0, 0.1, 2.0, 4.0), 0.975);
  EXPECT_DOUBLE_EQ(adapted_weight(0.0, 0.1, 1.0, 4.0), 0.0);
}

TEST(Schedule, OffsetFollowsTheServedRatio) {
  EXPECT_DOUBLE_EQ(adapted_offset(3.0, 0.5, 4.0, 4.0), 3.0);
  EXPECT_DOUBLE_EQ(adapted_offset(3.0, 0.5, 2.0, 4.0), 3.125) << "too few slots: fewer may merge";
  EXPECT_DOUBLE_EQ(adapted_offset(3.0, 0.5, 4.0, 2.0), 2.875);
  EXPECT_GT(adapted_offset(0.1, 1.0, 4.0, 1.0), 0.0);
}

TEST(Schedule, LearningRateWarmsUpHoldsAndDecays) {
  const auto at = [](int64_t step) { return learning_rate(step, 100, 10, 40, 1.0, 0.1); };
  EXPECT_DOUBLE_EQ(at(0), 0.1);
  EXPECT_DOUBLE_EQ(at(9), 1.0);
  EXPECT_DOUBLE_EQ(at(59), 1.0);
  EXPECT_DOUBLE_EQ(at(80), 0.55);
  for (int64_t step = 61; step < 100; ++step) EXPECT_LT(at(step), at(step - 1));
  EXPECT_GT(at(99), 0.1);
}

}  // namespace
}  // namespace dmc::policy

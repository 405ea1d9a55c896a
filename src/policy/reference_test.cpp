#include "policy/reference.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dmc::policy {
namespace {

ReferenceToken token(double value, Decision decision, double importance) {
  return {{value, 0.0}, {value, 1.0}, {{0.0, 0.0}}, decision, importance};
}
constexpr Decision kAppend = Decision::kAppend, kMerge = Decision::kMerge;

// By hand: 4 tokens, the first must open, the second merges, the third opens, the fourth merges.
TEST(Reference, WeightedMeansBySegment) {
  ReferenceStream stream({});
  stream.step(token(1.0, kMerge, 1.0));
  stream.step(token(4.0, kMerge, 0.5));
  stream.step(token(8.0, kAppend, 0.25));
  const auto out = stream.step(token(10.0, kMerge, 0.75));
  const auto slots = stream.slots();
  ASSERT_EQ(slots.size(), 2u);
  EXPECT_DOUBLE_EQ(slots[0].key[0], (1.0 * 1.0 + 0.5 * 4.0) / 1.5);
  EXPECT_DOUBLE_EQ(slots[1].value[0], 0.25 * 8.0 + 0.75 * 10.0);
  // A query of zeros weighs both slots the same.
  EXPECT_DOUBLE_EQ(out[0][0], (slots[0].value[0] + slots[1].value[0]) / 2.0);
  EXPECT_DOUBLE_EQ(out[0][1], 1.0);
}

TEST(Reference, WindowForgetsTheSegmentsStart) {
  ReferenceStream stream({.window = 2});
  for (double value : {100.0, 1.0, 3.0}) stream.step(token(value, kMerge, 1.0));
  ASSERT_EQ(stream.slots().size(), 1u);
  EXPECT_DOUBLE_EQ(stream.slots()[0].key[0], 2.0);
}

TEST(Reference, MeanIsRotatedWithTheNewestPosition) {
  ReferenceStream stream({.rope_theta = 10000.0});
  stream.step(token(1.0, kAppend, 1.0));
  stream.step(token(1.0, kMerge, 1.0));
  stream.step(token(1.0, kMerge, 1.0));
  const Vector key = stream.slots()[0].key;  // head size 2: one pair, turned by the position
  EXPECT_DOUBLE_EQ(key[0], std::cos(2.0));
  EXPECT_DOUBLE_EQ(key[1], std::sin(2.0));
}

// By hand: two raw tokens. The third token's arrival sends the first one to the slots, and so on; a
// slot's newest token weighs 1, what it carries its importance.
TEST(Reference, ADelayedTokenJoinsItsSlotWhenItIsNoLongerAmongTheNewest) {
  ReferenceStream stream({.delay = 2, .newest_weighs_one = true});
  stream.step(token(1.0, kMerge, 0.5));
  stream.step(token(4.0, kMerge, 0.25));
  EXPECT_EQ(stream.slots().size(), 2u);
  stream.step(token(8.0, kAppend, 0.5));
  ASSERT_EQ(stream.slots().size(), 3u);
  EXPECT_DOUBLE_EQ(stream.slots()[0].key[0], 1.0);
  const auto out = stream.step(token(16.0, kMerge, 0.5));
  ASSERT_EQ(stream.slots().size(), 3u) << "4 took the slot of 1 over";
  const double mean = (0.5 * 1.0 + 1.0 * 4.0) / 1.5;
  EXPECT_DOUBLE_EQ(stream.slots()[0].key[0], mean);
  EXPECT_DOUBLE_EQ(out[0][0], (mean + 8.0 + 16.0) / 3.0);
  stream.step(token(32.0, kMerge, 0.5));
  EXPECT_EQ(stream.slots().size(), 4u) << "8 opens a slot of its own";
}

TEST(Reference, ADroppedTokenIsSeenUntilTheDelayIsOver) {
  ReferenceStream stream({.delay = 1});
  stream.step(token(1.0, kAppend, 1.0));
  stream.step(token(2.0, Decision::kDropPrevious, 1.0));
  ASSERT_EQ(stream.slots().size(), 2u);
  stream.step(token(3.0, kAppend, 1.0));
  ASSERT_EQ(stream.slots().size(), 2u);
  EXPECT_DOUBLE_EQ(stream.slots()[0].key[0], 2.0);
}

}  // namespace
}  // namespace dmc::policy

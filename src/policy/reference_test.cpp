#include "policy/reference.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dmc::policy {
namespace {

ReferenceToken token(double value, bool merge, double importance) {
  return {{value, 0.0}, {value, 1.0}, {{0.0, 0.0}}, merge, importance};
}

// By hand: 4 tokens, the first must open, the second merges, the third opens, the fourth merges.
TEST(Reference, WeightedMeansBySegment) {
  ReferenceStream stream(/*window=*/0, /*rope_theta=*/0.0);
  stream.step(token(1.0, true, 1.0));
  stream.step(token(4.0, true, 0.5));
  stream.step(token(8.0, false, 0.25));
  const auto out = stream.step(token(10.0, true, 0.75));
  const auto slots = stream.slots();
  ASSERT_EQ(slots.size(), 2u);
  EXPECT_DOUBLE_EQ(slots[0].key[0], (1.0 * 1.0 + 0.5 * 4.0) / 1.5);
  EXPECT_DOUBLE_EQ(slots[1].value[0], 0.25 * 8.0 + 0.75 * 10.0);
  // A query of zeros weighs both slots the same.
  EXPECT_DOUBLE_EQ(out[0][0], (slots[0].value[0] + slots[1].value[0]) / 2.0);
  EXPECT_DOUBLE_EQ(out[0][1], 1.0);
}

TEST(Reference, WindowForgetsTheSegmentsStart) {
  ReferenceStream stream(/*window=*/2, /*rope_theta=*/0.0);
  for (double value : {100.0, 1.0, 3.0}) stream.step(token(value, true, 1.0));
  ASSERT_EQ(stream.slots().size(), 1u);
  EXPECT_DOUBLE_EQ(stream.slots()[0].key[0], 2.0);
}

TEST(Reference, MeanIsRotatedWithTheNewestPosition) {
  ReferenceStream stream(/*window=*/0, /*rope_theta=*/10000.0);
  stream.step(token(1.0, false, 1.0));
  stream.step(token(1.0, true, 1.0));
  stream.step(token(1.0, true, 1.0));
  const Vector key = stream.slots()[0].key;  // head size 2: one pair, turned by the position
  EXPECT_DOUBLE_EQ(key[0], std::cos(2.0));
  EXPECT_DOUBLE_EQ(key[1], std::sin(2.0));
}

}  // namespace
}  // namespace dmc::policy

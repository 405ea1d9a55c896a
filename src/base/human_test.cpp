#include "base/human.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace dmc {
namespace {

TEST(Human, FixedHasNoNegativeZeroAndSurvivesExtremes) {
  EXPECT_EQ(fixed(1.805, 1), "1.8");
  EXPECT_EQ(fixed(-0.001, 2), "0.00");
  EXPECT_EQ(fixed(-0.25, 2), "-0.25");
  EXPECT_EQ(fixed(std::nan(""), 2), "nan");
  EXPECT_EQ(fixed(-std::numeric_limits<double>::infinity(), 2), "-inf");
  EXPECT_EQ(fixed(std::numeric_limits<double>::max(), 2).size(), 312u);
}

TEST(Human, BytesKeepTwoOrThreeDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(23.0 * 1024 * 1024), "23 MiB");
}

TEST(Human, CountsNeverShowFourDigits) {
  EXPECT_EQ(human_count(950), "950");
  EXPECT_EQ(human_count(5120), "5.1k");
  EXPECT_EQ(human_count(9960), "10k");
  EXPECT_EQ(human_count(999.7), "1.0k");
  EXPECT_EQ(human_count(12.4e6), "12M");
}

TEST(Human, DurationsRoundWithoutCarryMistakes) {
  EXPECT_EQ(human_duration(0.42), "0.4s");
  EXPECT_EQ(human_duration(59.6), "1m 00s");
  EXPECT_EQ(human_duration(80), "1m 20s");
  EXPECT_EQ(human_duration(7500), "2h 05m");
  EXPECT_EQ(human_duration(std::nan("")), "?");
  EXPECT_EQ(human_duration(-1), "?");
}

}  // namespace
}  // namespace dmc

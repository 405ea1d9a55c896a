#include "eval/tasks/humaneval.h"

#include <gtest/gtest.h>

namespace dmc::eval {
namespace {

TEST(PassAtK, IsTheShareOfSubsetsWithARightAnswer) {
  EXPECT_DOUBLE_EQ(pass_at_k(1, 0, 1), 0.0);
  EXPECT_DOUBLE_EQ(pass_at_k(1, 1, 1), 1.0);
  EXPECT_NEAR(pass_at_k(100, 7, 1), 0.07, 1e-12);
  EXPECT_DOUBLE_EQ(pass_at_k(5, 3, 3), 1.0 - 0.0) << "two wrong ones cannot fill three places";
  for (int n = 1; n <= 8; ++n) {
    for (int c = 0; c <= n; ++c) {
      for (int k = 1; k <= n; ++k) {
        int with = 0, all = 0;
        for (unsigned subset = 0; subset < 1u << n; ++subset) {
          if (__builtin_popcount(subset) != k) continue;
          ++all;
          with += (subset & ((1u << c) - 1)) != 0;  // the first c samples are right
        }
        EXPECT_NEAR(pass_at_k(n, c, k), static_cast<double>(with) / all, 1e-12);
      }
    }
  }
}

TEST(CutAtStop, TakesTheFirstOfAllStops) {
  const std::string_view stops[] = {"\ndef", "\nif"};
  EXPECT_EQ(cut_at_stop("  return 1\nif x:\ndef", stops), "  return 1");
  EXPECT_EQ(cut_at_stop("  if x:\n    return", stops), "  if x:\n    return");
  EXPECT_EQ(cut_at_stop("\ndef", stops), "");
}

}  // namespace
}  // namespace dmc::eval

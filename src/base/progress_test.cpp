#include "base/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "base/terminal.h"

namespace dmc {
namespace {

const ProgressState kState{"training", 120, 400, "loss 2.31 CR 1.72 (want 1.80)", "1m 20s left"};

TEST(ProgressLine, ShowsBarCountTimeAndFields) {
  EXPECT_EQ(progress_line(kState, 200, false),
            "training #########..................... 120/400 1m 20s left "
            "loss 2.31 CR 1.72 (want 1.80)");
}

TEST(ProgressLine, NeverExceedsTheWidth) {
  for (size_t width = 1; width < 140; ++width) {
    for (const bool utf8 : {false, true}) {
      const std::string line = progress_line(kState, width, utf8);
      EXPECT_LE(display_width(line), width);
    }
  }
}

TEST(ProgressLine, TheEndOfTheFieldsIsCutOnANarrowTerminal) {
  EXPECT_EQ(progress_line(kState, 60, false),
            "training ##...... 120/400 1m 20s left loss 2.31 CR 1.72 (wan");
}

TEST(ProgressLine, UnknownTotalHasNoBarAndNoPercentage) {
  EXPECT_EQ(progress_line({"reading", 12, 0, "", ""}, 80, true), "reading 12");
}

TEST(ProgressLine, OneHundredPercentOnlyWhenDone) {
  EXPECT_EQ(progress_log_line({"x", 999999, 1000000, "", ""}), "x 999999/1000000 (99%)");
  EXPECT_EQ(progress_log_line({"x", 1000000, 1000000, "", ""}), "x 1000000/1000000 (100%)");
}

class ProgressBarTest : public testing::Test {
 protected:
  ProgressBar::Output output(bool redraw) {
    return {stream_, redraw, [this] { return now_; }};
  }
  std::ostringstream stream_;
  double now_ = 100.0;
};

TEST_F(ProgressBarTest, LogsTheFirstEveryFiveSecondsAndTheLast) {
  {
    ProgressBar bar("work", 100, output(false));
    for (int i = 1; i <= 10; ++i) {
      now_ += 1.0;
      bar.update(10 * i, "step " + std::to_string(i));
    }
  }
  EXPECT_EQ(stream_.str(),
            "work 10/100 (10%) step 1\n"
            "work 60/100 (60%) step 6 4.0s left\n"
            "work 100/100 (100%) step 10 took 10s\n");
}

TEST_F(ProgressBarTest, PaceIsCountedFromWhereAResumedRunBegan) {
  ProgressBar bar("work", 1000, output(false));
  bar.update(900);
  now_ += 10.0;
  bar.update(950);
  EXPECT_NE(stream_.str().find("work 950/1000 (95%) 10s left"), std::string::npos) << stream_.str();
}

TEST_F(ProgressBarTest, RedrawsOneLineAtMostTenTimesASecond) {
  {
    ProgressBar bar("work", 1000, output(true));
    for (int i = 1; i <= 1000; ++i) {
      now_ += 0.001;
      bar.update(i);
    }
  }
  const std::string text = stream_.str();
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 12);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.back(), '\n');
  EXPECT_NE(text.find("1000/1000"), std::string::npos);
}

TEST_F(ProgressBarTest, WithoutAnUpdateNothingIsWritten) {
  { ProgressBar bar("work", 10, output(true)); }
  EXPECT_EQ(stream_.str(), "");
}

}  // namespace
}  // namespace dmc

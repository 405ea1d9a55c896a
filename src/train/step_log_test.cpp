#include "train/step_log.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_folder.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

StepRecord record(int64_t step) {
  StepRecord r;
  r.step = step;
  r.stage = "dense";
  return r;
}

class StepLogTest : public testing::Test {
 protected:
  void write(int64_t done, int64_t first, int64_t last) const {
    StepLog log(path_, done);
    for (int64_t step = first; step <= last; ++step) log.write(record(step));
    log.sync();
  }
  std::string text() const { return read_text_file(path_); }
  std::string refusal(int64_t done) const {
    try {
      const StepLog log(path_, done);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
      return error.what();
    }
    return "";
  }

  const TempFolder temp_;
  const fs::path path_ = temp_.path() / "train.jsonl";
};

TEST_F(StepLogTest, AResumedLogIsThatOfOneRun) {
  write(0, 1, 9);
  const std::string whole = text();
  std::ofstream(path_, std::ios::app) << "{\"step\": 10, \"lo";
  for (const int64_t done : {9, 7, 0}) {
    write(done, done + 1, 9);
    EXPECT_EQ(text(), whole) << done;
  }
}

TEST_F(StepLogTest, LostLinesAreToldAndNothingIsTouched) {
  write(0, 1, 4);
  std::ofstream(path_, std::ios::app) << "{\"step\": 5, \"lo";
  const std::string before = text();
  EXPECT_NE(refusal(9).find("no line of step 5"), std::string::npos) << refusal(9);
  EXPECT_EQ(text(), before);
  write(4, 5, 6);
  const size_t third = text().find('\n', text().find('\n') + 1) + 1;
  write_file_atomically(path_, text().erase(third, text().find('\n', third) + 1 - third));
  EXPECT_NE(refusal(6).find("no line of step 3"), std::string::npos);
  write_file_atomically(path_, "");
  EXPECT_NE(refusal(6).find("no line of step 1"), std::string::npos);
}

TEST_F(StepLogTest, ALogThatWasTakenAwayBeginsLater) {
  write(5, 6, 8);
  const std::string later = text();
  write(7, 8, 8);
  EXPECT_EQ(text(), later);
  EXPECT_EQ(later.find("{\"step\":6,"), 0u);
}

// Too little room must cost no line that was there: it ends in a sentence, and the next run finds
// all steps up to the checkpoint.
TEST_F(StepLogTest, AFullDiskLosesNoStep) {
  write(0, 1, 12);
  const std::string whole = text();
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit room{whole.size() + 10, whole.size() + 10};
    setrlimit(RLIMIT_FSIZE, &room);
    try {
      write(10, 11, 14);
    } catch (const Error& error) {
      const bool told = std::string(error.what()).find("cannot be written: ") != std::string::npos;
      _exit(told && error.code() == ErrorCode::kInternal ? 7 : 1);
    }
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WEXITSTATUS(status), 7);
  write(10, 11, 12);
  EXPECT_EQ(text(), whole);
}

TEST_F(StepLogTest, AFolderThatIsNotThereIsToldOf) {
  EXPECT_THROW(StepLog(temp_.path() / "gone" / "train.jsonl", 0), Error);
}

}  // namespace
}  // namespace dmc::train

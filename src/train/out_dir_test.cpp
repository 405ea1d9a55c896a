#include "train/out_dir.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_folder.h"
#include "train/checkpoint.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

class OutDir : public testing::Test {
 protected:
  TrainOptions options(const std::string& out) const {
    TrainOptions o;
    o.model_dir = temp_.path() / "model";
    o.out_dir = temp_.path() / out;
    return o;
  }
  static std::string refusal(const TrainOptions& o) {
    try {
      const auto lock = claim_out_dir(o);
    } catch (const Error& error) {
      return command_line_sentence(error);
    }
    return "";
  }
  static void put(const fs::path& path) { write_file_atomically(path, "x"); }

  const TempFolder temp_;
};

TEST_F(OutDir, OneThatHoldsSomethingIsClaimedOnlyOnRequest) {
  TrainOptions o = options("out");
  EXPECT_EQ(refusal(o), "");
  EXPECT_FALSE(fs::exists(o.out_dir)) << "nothing came of the run";
  fs::create_directories(o.out_dir / "cr-2");
  EXPECT_EQ(refusal(options("out/cr-2")), "") << "it is empty";
  put(o.out_dir / "mine.txt");
  put(o.out_dir / "config.json");
  EXPECT_NE(refusal(o).find("--out: "), std::string::npos);
  EXPECT_THROW(check_out_dir(o), Error);
  o.overwrite = true;
  EXPECT_EQ(refusal(o), "");
  EXPECT_TRUE(fs::exists(o.out_dir / "mine.txt"));
  EXPECT_TRUE(fs::exists(o.out_dir / "cr-2")) << "no model is in it";
  EXPECT_FALSE(fs::exists(o.out_dir / "config.json"));
  EXPECT_FALSE(fs::exists(o.out_dir / OutLock::kName));
  o.model_dir = o.out_dir;
  EXPECT_NE(refusal(o).find("the model's own folder"), std::string::npos);
}

TEST_F(OutDir, HasOneRunAtATimeAndSaysWhose) {
  const TrainOptions o = options("out");
  const auto lock = claim_out_dir(o);
  check_out_dir(o);  // what another rank of the same run does
  for (const bool overwrite : {false, true}) {
    TrainOptions other = o;
    other.overwrite = overwrite;
    EXPECT_NE(refusal(other).find("by process " + std::to_string(getpid()) + ","),
              std::string::npos);
  }
  EXPECT_TRUE(fs::exists(o.out_dir / OutLock::kName)) << "who was refused took it away";
}

TEST_F(OutDir, AKilledRunLocksNobodyOut) {
  const TrainOptions o = options("out");
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = claim_out_dir(o);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(fs::exists(o.out_dir / OutLock::kName));
  EXPECT_EQ(refusal(o), "");
}

TEST_F(OutDir, WhatAKilledRunLeftHalfWrittenGoes) {
  TrainOptions o = options("out");
  o.resume = true;
  fs::create_directories(o.out_dir / "cr-2");
  fs::create_directories(o.out_dir / "being-measured");
  put(checkpoint_path(o.out_dir));
  put(o.out_dir / "train.jsonl");
  const fs::path left[] = {o.out_dir / "checkpoint.safetensors.tmp-1", o.out_dir / "cr-2/x.tmp-23",
                           o.out_dir / "being-measured/config.json"};
  for (const fs::path& path : left) put(path);
  EXPECT_EQ(refusal(o), "");
  for (const fs::path& path : left) EXPECT_FALSE(fs::exists(path)) << path;
  EXPECT_TRUE(fs::exists(checkpoint_path(o.out_dir)));
  EXPECT_TRUE(fs::exists(o.out_dir / "train.jsonl"));
  o.resume = false;
  EXPECT_NE(refusal(o).find("--resume to go on"), std::string::npos);
}

TEST_F(OutDir, ResumingWithoutACheckpointSaysWhatToDo) {
  TrainOptions o = options("out");
  o.resume = true;
  EXPECT_NE(refusal(o).find("begin the run without --resume"), std::string::npos);
  EXPECT_FALSE(fs::exists(o.out_dir));
  fs::create_directories(o.out_dir);
  put(o.out_dir / "train.jsonl");
  EXPECT_NE(refusal(o).find("--overwrite"), std::string::npos);
  put(o.out_dir / "config.json");
  EXPECT_NE(refusal(o).find("finished model"), std::string::npos);
}

}  // namespace
}  // namespace dmc::train

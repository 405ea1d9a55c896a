// What a sweep measures and how it is kept.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_folder.h"
#include "eval/sweep/plan.h"
#include "eval/sweep/record.h"

namespace dmc::eval {
namespace {

SweepAxes axes() {
  SweepAxes axes;
  axes.models = {{"models/dense", ""}, {"models/4x", "dmc"}};
  axes.crs = {2.0, 4.0};
  axes.kvs = {"f32"};
  axes.tasks = {"text", "needle", "speed"};
  axes.size_of = [](const std::string& task) { return "some " + task; };
  return axes;
}

int count(const std::vector<SweepCell>& cells, const std::string& policy, const std::string& task) {
  return static_cast<int>(std::ranges::count_if(
      cells, [&](const SweepCell& c) { return c.policy == policy && c.task == task; }));
}

TEST(SweepPlan, MeasuresWhatGoesTogether) {
  const std::vector<SweepCell> cells = plan_sweep(axes());
  EXPECT_EQ(count(cells, "dense", "text"), 1) << "on the dense model alone, at no ratio";
  EXPECT_EQ(count(cells, "h2o", "text"), 2);
  EXPECT_EQ(count(cells, "snapkv", "text"), 0) << "text has no end of a prompt";
  EXPECT_EQ(count(cells, "snapkv", "needle"), 2);
  EXPECT_EQ(count(cells, "snapkv", "speed"), 2);
  EXPECT_EQ(count(cells, "dmc", "text"), 3) << "as it is and at both ratios";
  EXPECT_EQ(count(cells, "forced", "text"), 0) << "merging at random has no quality to compare";
  for (const SweepCell& cell : cells) {
    EXPECT_EQ(cell.policy == "dmc", cell.model == "models/4x");
    EXPECT_EQ(std::ranges::count(cells, cell), 1);
  }
}

TEST(SweepPlan, SettingsStandTogether) {
  const std::vector<SweepCell> cells = plan_sweep(axes());
  std::set<std::string> done;
  std::string last;
  for (const SweepCell& cell : cells) {
    const std::string setting = cell.model + cell.policy + std::to_string(cell.cr) + cell.kv;
    if (setting != last) {
      EXPECT_TRUE(done.insert(setting).second) << setting;
    }
    last = setting;
  }
}

TEST(SweepPlan, NamedPoliciesAreTakenWhereTheyCanRun) {
  SweepAxes some = axes();
  some.policies = {"dmc", "forced"};
  const std::vector<SweepCell> cells = plan_sweep(some);
  EXPECT_EQ(count(cells, "dmc", "text"), 3);
  EXPECT_EQ(count(cells, "forced", "text"), 4) << "on both models";
  some.policies = {"no-such"};
  EXPECT_THROW(plan_sweep(some), Error);
  some.policies = {"dms"};
  EXPECT_THROW(plan_sweep(some), Error) << "no model has it";
}

SweepRecord record(const std::string& policy) {
  SweepRecord record;
  record.cell = {"models/a \"b\"", policy, 4.0, "int8", "needle", "16 items"};
  record.score.items = 16;
  record.score.metrics = {{"loss", 1.25, NAN}, {"acc", 0.5, 0.125}};
  record.score.compression_ratio = 3.75;
  record.score.grids = {{"length", "depth", {"256"}, {"0%", "100%"}, {{0.25, 0.75}}}};
  record.cr_by_head = {{1.0, 2.0}, {3.0, 4.0}};
  record.seconds = 2.5;
  return record;
}

TEST(SweepRecords, ALineSaysEverything) {
  const SweepRecord before = record("h2o");
  const SweepRecord after = parse_line(to_line(before), "x");
  EXPECT_EQ(after.cell, before.cell);
  EXPECT_EQ(to_line(after), to_line(before));
  EXPECT_TRUE(std::isnan(after.score.metrics[0].standard_error));
  EXPECT_EQ(after.score.metrics[1].standard_error, 0.125);
  EXPECT_EQ(after.score.grids[0].values, before.score.grids[0].values);
  EXPECT_EQ(after.cr_by_head, before.cr_by_head);
}

TEST(SweepRecords, AFileGoesOnWhereItWasCutOff) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "sweep.jsonl";
  {
    SweepFile file(path);
    file.append(record("h2o"));
    file.append(record("tova"));
  }
  std::ofstream(path, std::ios::app) << to_line(record("window")).substr(0, 40);  // a crash
  {
    SweepFile file(path);
    EXPECT_EQ(file.records().size(), 2u);
    EXPECT_TRUE(file.has(record("tova").cell));
    EXPECT_FALSE(file.has(record("window").cell));
    file.append(record("window"));
  }
  EXPECT_EQ(SweepFile(path).records().size(), 3u);
}

TEST(SweepRecords, SaysWhichLineIsWrong) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "sweep.jsonl";
  for (const char* wrong : {"{}", "[1]", "nonsense", R"({"model": 3})"}) {
    std::ofstream(path) << to_line(record("h2o")) << "\n" << wrong << "\n";
    try {
      SweepFile file(path);
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
      EXPECT_NE(std::string(error.what()).find("sweep.jsonl line 2"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace dmc::eval

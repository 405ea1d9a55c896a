#include "eval/sweep/sweep_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "eval/sweep/series.h"
#include "report/markup_check.h"

namespace dmc::eval {
namespace {

SweepRecord text(const std::string& model, const std::string& policy, double cr, double reached,
                 double bits) {
  SweepRecord record;
  record.cell = {model, policy, cr, "f32", kTextTask, "2 windows of 1024"};
  record.score = {2048, {{"loss", bits, NAN}, {"bits_per_byte", bits, 0.01}}, reached};
  return record;
}

SweepRecord speed(const SweepCell& of, double bytes, double decode) {
  SweepRecord record;
  record.cell = of;
  record.cell.task = kSpeedTask;
  record.cell.size = "4 sequences of 1024";
  record.score = {4, {{kBytesPerToken, bytes}, {kPrefill, 900}, {kDecode, decode}}, 1.0};
  return record;
}

// h2o is worse than tova at both ratios; dmc lies between tova's points.
std::vector<SweepRecord> small_sweep() {
  std::vector<SweepRecord> records = {
      text("m/dense", "dense", 0, 1.0, 0.80), text("m/dense", "h2o", 2, 2.0, 0.90),
      text("m/dense", "h2o", 4, 4.0, 1.00),   text("m/dense", "tova", 2, 2.0, 0.85),
      text("m/dense", "tova", 4, 4.0, 0.95),  text("m/4x", "dmc", 0, 3.9, 0.90)};
  records.back().cr_by_head = {{1.0, 20.0}, {3.0, 4.0}};
  records.push_back(speed(records[0].cell, 5120, 100));
  records.push_back(speed(records[5].cell, 1400, 220));
  return records;
}

TEST(SweepTasks, MarksWhatNoOtherBeats) {
  const auto records = small_sweep();
  const std::vector<SweepTask> tasks = sweep_tasks(records);
  ASSERT_EQ(tasks.size(), 1u) << "speed is no task of its own";
  EXPECT_TRUE(tasks[0].lower_is_better);
  std::string frontier;
  for (const SweepSeries& series : tasks[0].series) {
    for (const SweepPoint& p : series.points) {
      if (p.on_frontier) frontier += series.label + std::to_string(std::lround(p.ratio)) + " ";
    }
  }
  EXPECT_EQ(frontier, "dense1 tova2 tova4 dmc4 ");
}

TEST(SweepTasks, KeepsSizesApart) {
  std::vector<SweepRecord> records = small_sweep();
  records.push_back(text("m/dense", "dense", 0, 1.0, 0.7));
  records.back().cell.size = "32 windows of 2048";
  const std::vector<SweepTask> tasks = sweep_tasks(records);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].series[0].points.size(), 1u);
}

TEST(SweepTasks, JoinsSpeedToItsSetting) {
  const auto records = small_sweep();
  const std::vector<SweepTask> tasks = sweep_tasks(records);
  const SweepSeries &dense = tasks[0].series.front(), &dmc = tasks[0].series.back();
  EXPECT_EQ(dense.points[0].decode, 100);
  EXPECT_EQ(dmc.points[0].bytes, 1400);
  EXPECT_TRUE(std::isnan(tasks[0].series[1].points[0].bytes)) << "h2o's was not measured";
}

TEST(SweepTasks, LabelsSayWhatTellsSeriesApart) {
  std::vector<SweepRecord> records = small_sweep();
  EXPECT_EQ(sweep_tasks(records)[0].series.back().label, "dmc");
  records.push_back(text("m/8x/", "dmc", 0, 7.8, 0.97));
  EXPECT_EQ(sweep_tasks(records)[0].series.back().label, "dmc 8x");
}

TEST(SweepReport, IsWellFormedWhateverWasMeasured) {
  std::vector<SweepRecord> records = small_sweep();
  SweepRecord odd = text("<model> & \"co\"", "h2o", 4, NAN, INFINITY);
  odd.cell.task = "needle";
  odd.score.grids = {{"length", "depth", {"256", "512"}, {"0%", "50%"}, {{0.0, 1.0}, {NAN, 0.5}}}};
  records.push_back(odd);
  for (size_t count = 0; count <= records.size(); ++count) {
    const std::vector<SweepRecord> some(records.begin(),
                                        records.begin() + static_cast<ptrdiff_t>(count));
    const std::string page = render_sweep_report(some);
    EXPECT_EQ(report::markup_problem(page), "") << count << " records";
  }
  const std::string page = render_sweep_report(records);
  EXPECT_GT(report::count_of(page, "class=\"whisker"), 3) << "error bars";
  EXPECT_EQ(report::count_of(page, "band\""), 1) << "nothing of needle's is known";
  EXPECT_EQ(report::count_of(page, "class=\"best\""), 4);
  std::ostringstream table;
  print_sweep(table, records);
  EXPECT_NE(table.str().find("tova *"), std::string::npos) << table.str();
}

}  // namespace
}  // namespace dmc::eval

// Training on several ranks is the same run as on one: threads stand for processes here.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "dist/thread_groups.h"
#include "model/safetensors.h"
#include "nn/decoder.h"
#include "train/checkpoint.h"
#include "train/loss.h"
#include "train/method.h"
#include "train/trainer_testing.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

// A few steps apart from one another by no more than sums in another order.
constexpr double kTolerance = 2e-4;

Outcome run_on(int ranks, const TrainOptions& options, int64_t stop_after = 1 << 30) {
  Outcome outcome = Outcome::kInterrupted;
  dist::run_as_threads(ranks, [&](dist::Group& group) {
    const Outcome mine = run(options, stop_after, group);
    if (group.is_first()) outcome = mine;
  });
  return outcome;
}

void expect_same_logs(const fs::path& expected_dir, const fs::path& got_dir) {
  const auto expected = log_lines(expected_dir), got = log_lines(got_dir);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const auto a = nlohmann::json::parse(expected[i]), b = nlohmann::json::parse(got[i]);
    for (const auto& [key, value] : a.items()) {
      if (value.is_number_float()) {
        EXPECT_NEAR(b.at(key).get<double>(), value.get<double>(), kTolerance)
            << key << " of step " << i + 1;
      } else {
        EXPECT_EQ(b.at(key), value) << key << " of step " << i + 1;
      }
    }
  }
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / a.norm()).item<double>();
}

void expect_same_weights(const fs::path& expected_dir, const fs::path& got_dir) {
  const nn::Decoder expected = nn::Decoder::load(expected_dir);
  const nn::Decoder got = nn::Decoder::load(got_dir);
  for (const auto& [name, parameter] : expected.parameters()) {
    EXPECT_LT(distance(parameter, got.parameter(name)), kTolerance) << name;
  }
}

class SeveralRanks : public TrainerTest {
 protected:
  // Six rows, which two and three ranks share. Without noise's sharp edges: a decision that falls
  // the other way by a sum's last bit would hide what is compared.
  TrainOptions six_rows(TrainOptions o) const {
    o.batch = 6;
    o.retrofit.temperature = 1.0;
    return o;
  }

  void expect_same_run(const TrainOptions& on_one) {
    ASSERT_EQ(run(on_one), Outcome::kFinished);
    for (const int ranks : {1, 2, 3}) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks");
      TrainOptions o = on_one;
      o.out_dir += "-" + std::to_string(ranks);
      ASSERT_EQ(run_on(ranks, o), Outcome::kFinished);
      expect_same_logs(on_one.out_dir, o.out_dir);
      expect_same_weights(on_one.out_dir, o.out_dir);
      EXPECT_FALSE(fs::exists(checkpoint_path(o.out_dir)));
    }
  }
};

TEST_F(SeveralRanks, PlainTraining) {
  TrainOptions o = six_rows(options("dense"));
  o.stages = {{find_stage("dense"), 6}};
  expect_same_run(o);
}

TEST_F(SeveralRanks, EveryMethod) {
  for (const Method& method : methods()) {
    TrainOptions o = six_rows(options(std::string(method.name)));
    o.retrofit.method = method.name;
    o.retrofit.window = method.window.usual;
    o.retrofit.delay = std::min<int64_t>(method.delay.usual, o.length / 6);
    o.retrofit.importance_offset = method.importance_offset;
    SCOPED_TRACE(method.name);
    expect_same_run(o);
  }
}

TEST_F(SeveralRanks, Distillation) {
  TrainOptions o = six_rows(options("distilled"));
  o.retrofit.distill = "forward";
  o.retrofit.distill_weight = 0.7;
  expect_same_run(o);
}

// Fewer tensors than ranks: some ranks update nothing.
TEST_F(SeveralRanks, AnAdapter) { expect_same_run(six_rows(adapter_options("adapter"))); }

TEST_F(SeveralRanks, ModelsOnTheWay) {
  TrainOptions one = six_rows(options("one")), three = one;
  one.retrofit.save_at_cr = three.retrofit.save_at_cr = {1.01};
  three.out_dir = root_ / "three";
  ASSERT_EQ(run(one), Outcome::kFinished);
  ASSERT_EQ(run_on(3, three), Outcome::kFinished);
  expect_same_weights(one.out_dir / "cr-1.01", three.out_dir / "cr-1.01");
}

// A checkpoint knows nothing of ranks: it has all of the optimizer's state and all rows' places.
TEST_F(SeveralRanks, ARunGoesOnOnAnotherNumberOfThem) {
  TrainOptions straight = six_rows(options("straight")), moved = straight;
  moved.out_dir = root_ / "moved";
  ASSERT_EQ(run(straight), Outcome::kFinished);
  for (const auto& [ranks, steps] : {std::pair{3, 4}, {1, 3}, {2, 4}}) {
    ASSERT_EQ(run_on(ranks, moved, steps), Outcome::kInterrupted);
    moved.resume = true;
  }
  ASSERT_EQ(run_on(3, moved), Outcome::kFinished);
  expect_same_logs(straight.out_dir, moved.out_dir);
  expect_same_weights(straight.out_dir, moved.out_dir);
}

TEST_F(SeveralRanks, ACheckpointIsTheSameFileFromAnyNumber) {
  TrainOptions one = six_rows(options("one")), three = one;
  three.out_dir = root_ / "three";
  ASSERT_EQ(run(one, 3), Outcome::kInterrupted);
  ASSERT_EQ(run_on(3, three, 3), Outcome::kInterrupted);
  const model::SafetensorsFile a(checkpoint_path(one.out_dir)), b(checkpoint_path(three.out_dir));
  EXPECT_EQ(nlohmann::json::parse(a.metadata().at("progress")).at("feeds"),
            nlohmann::json::parse(b.metadata().at("progress")).at("feeds"));
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, view] : a.tensors()) {
    const at::Tensor expected = nn::to_tensor(view, at::kFloat);
    EXPECT_LT(distance(expected, nn::to_tensor(b.tensors().at(name), at::kFloat)), 1e-3) << name;
  }
}

TEST_F(SeveralRanks, OneThatIsInterruptedStopsAllAfterTheSameStep) {
  const TrainOptions o = six_rows(options("stopped"));
  dist::run_as_threads(3, [&](dist::Group& group) {
    int64_t steps = 0;
    const auto interrupted = [&] { return ++steps == 2 && group.rank() == 1; };
    EXPECT_EQ(run_training(o, interrupted, {}, group), Outcome::kInterrupted);
    EXPECT_EQ(steps, 2);
  });
  EXPECT_EQ(log_lines(o.out_dir).size(), 2u);
  EXPECT_TRUE(fs::exists(checkpoint_path(o.out_dir)));
}

TEST_F(SeveralRanks, ABatchThatCannotBeSharedIsRefused) {
  const TrainOptions o = six_rows(options("odd"));
  try {
    run_on(4, o);
    FAIL() << "six rows were shared by four";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(command_line_sentence(error).find("--batch: 6"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(o.out_dir));
}

}  // namespace
}  // namespace dmc::train

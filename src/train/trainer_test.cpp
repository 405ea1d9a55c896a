#include "train/trainer.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "model/config_file.h"
#include "model/rope_frequencies.h"
#include "model/safetensors.h"
#include "nn/decision_channel.h"
#include "nn/decoder.h"
#include "nn/dense_attention.h"
#include "nn/weights.h"
#include "train/checkpoint.h"
#include "train/defaults.h"
#include "train/loss.h"
#include "train/method.h"
#include "train/out_dir.h"
#include "train/retrofitted_model.h"
#include "train/trainer_testing.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

// The same run twice: in one go, and interrupted within each stage and right at a stage's end.
void expect_resumed_is_straight(TrainOptions straight, TrainOptions resumed) {
  ASSERT_EQ(run(straight), Outcome::kFinished);
  for (int64_t steps : {3, 2, 4}) {
    ASSERT_EQ(run(resumed, steps), Outcome::kInterrupted);
    resumed.resume = true;
  }
  ASSERT_EQ(run(resumed), Outcome::kFinished);
  EXPECT_EQ(log_lines(straight.out_dir), log_lines(resumed.out_dir));
  EXPECT_EQ(read_text_file(straight.out_dir / "model.safetensors"),
            read_text_file(resumed.out_dir / "model.safetensors"));
}

TEST_F(TrainerTest, ResumedRunIsTheSameToTheBitForEveryMethod) {
  for (const Method& method : methods()) {
    for (const bool adapter : {false, true}) {
      const std::string name(method.name), folder = name + (adapter ? "-adapter" : "");
      TrainOptions straight = adapter ? adapter_options(folder) : options(folder);
      straight.retrofit.method = name;
      straight.retrofit.window = method.window.usual;
      straight.retrofit.delay = std::min<int64_t>(method.delay.usual, straight.length / 6);
      straight.retrofit.importance_offset = method.importance_offset;
      TrainOptions resumed = straight;
      resumed.out_dir += "-resumed";
      expect_resumed_is_straight(straight, resumed);
      const model::ModelConfig config = model::read_model_config(straight.out_dir);
      EXPECT_EQ(config.dmc->method, name);
      EXPECT_EQ(config.dmc->window, straight.retrofit.window);
      EXPECT_EQ(config.dmc->delay, straight.retrofit.delay);
      // The decisions' own has moved away from it.
      if (method.window.can_differ()) {
        EXPECT_EQ(config.dmc->importance_offset,
                  method.importance_offset.value_or(straight.retrofit.offset));
      }
      EXPECT_EQ(config.has_adapter(), adapter);
    }
  }
}

TEST_F(TrainerTest, AnAdapterTrainsAloneAndKeepsItsRunSmall) {
  TrainOptions o = adapter_options("out");
  o.retrofit.distill = "forward";  // from the same base weights
  ASSERT_EQ(run(o, 4), Outcome::kInterrupted);
  const model::SafetensorsFile checkpoint(o.out_dir / "checkpoint.safetensors");
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    EXPECT_NE(name.find(".decision_"), std::string::npos) << name;
  }
  o.resume = true;
  ASSERT_EQ(run(o), Outcome::kFinished);

  const nn::Decoder base = nn::Decoder::load(o.model_dir);
  const nn::Decoder trained = nn::Decoder::load(o.out_dir);
  for (const auto& [name, parameter] : base.parameters()) {
    EXPECT_TRUE(at::equal(trained.parameter(name), parameter)) << name;
  }
  for (const model::LayerLayout& layer : trained.layout().layers) {
    EXPECT_GT(trained.parameter(layer.decision_proj.weight).abs().max().item<float>(), 0.0f);
  }
}

// With the defaults a short run of a small model comes to its ratio, by every method, and the model
// that it leaves has the offset that it landed on.
TEST_F(TrainerTest, AShortRunReachesItsRatio) {
  for (const Method& method : methods()) {
    TrainOptions o = adapter_options(std::string(method.name));
    o.retrofit.train_base = true;
    o.retrofit.method = method.name;
    o.retrofit.window = method.window.usual;
    o.retrofit.delay = method.delay.usual > 0 ? 4 : 0;
    o.retrofit.importance_offset = method.importance_offset;
    o.batch = 4;
    o.stages = {{find_stage("retrofit"), 40}, {find_stage("finetune"), 40}};
    const RunFacts facts{
        .parameters = 1e5, .context = 48, .text_tokens = 1e5, .hidden = 32, .ramp_steps = 40};
    const Defaults chosen = choose_defaults(facts, {.length = o.length, .batch = o.batch});
    o.learning_rate = chosen.learning_rate;
    o.final_learning_rate = chosen.final_learning_rate;
    o.retrofit.decision_scale = chosen.decision_scale;
    ASSERT_EQ(run(o), Outcome::kFinished);

    const std::vector<std::string> lines = log_lines(o.out_dir);
    double cr = 0.0;
    for (size_t i = lines.size() - 5; i < lines.size(); ++i) {
      cr += nlohmann::json::parse(lines[i]).at("cr").get<double>() / 5;
    }
    EXPECT_NEAR(cr, 2.0, 0.2) << method.name;
    const double landed = nlohmann::json::parse(lines.back()).at("decision_offset").get<double>();
    EXPECT_NE(landed, o.retrofit.offset);
    EXPECT_NEAR(model::read_model_config(o.out_dir).dmc->decision_offset, landed, 0.5);
  }
}

TEST_F(TrainerTest, TrainBaseTrainsAllOfTheModel) {
  TrainOptions o = adapter_options("out");
  o.retrofit.train_base = true;
  ASSERT_EQ(run(o), Outcome::kFinished);
  const nn::Decoder base = nn::Decoder::load(o.model_dir);
  const nn::Decoder trained = nn::Decoder::load(o.out_dir);
  for (const auto& [name, parameter] : base.parameters()) {
    EXPECT_FALSE(at::equal(trained.parameter(name), parameter)) << name;
  }
}

// The base of a model with an adapter is as good a start as it was before; one whose own channels
// decide is none.
TEST_F(TrainerTest, ARetrofitStartsDecisionsOver) {
  TrainOptions first = adapter_options("first"), o = adapter_options("second");
  ASSERT_EQ(run(first), Outcome::kFinished);
  o.model_dir = first.out_dir;
  ASSERT_EQ(run(o), Outcome::kFinished);
  EXPECT_EQ(log_lines(o.out_dir), log_lines(first.out_dir));

  TrainOptions by_channel = options("by-channel");
  by_channel.model_dir = first.out_dir;
  ASSERT_EQ(run(by_channel), Outcome::kFinished);
  EXPECT_TRUE(model::read_model_config(by_channel.out_dir).has_decision_channel());
  o = adapter_options("third");
  o.model_dir = by_channel.out_dir;
  EXPECT_THROW(run(o), Error);
}

TEST_F(TrainerTest, DistillationResumesToTheBitAndStartsFromTheTeacher) {
  for (const Divergence& divergence : divergences()) {
    const std::string name(divergence.name);
    TrainOptions straight = options(name), resumed = options(name + "-resumed");
    straight.retrofit.distill = resumed.retrofit.distill = name;
    expect_resumed_is_straight(straight, resumed);
    const std::vector<std::string> lines = log_lines(straight.out_dir);
    const auto divergence_of = [](const std::string& line) {
      return nlohmann::json::parse(line).at("divergence").get<double>();
    };
    EXPECT_NEAR(divergence_of(lines.front()), 0.0, 1e-6) << "at first the student is the teacher";
    EXPECT_GT(divergence_of(lines.back()), 1e-4);
  }
}

// With next to no offset, any weight that a decision channel has learned makes decisions: those of
// the retrofit stage's second step. The ratio that is wanted does not reach the target in it.
TrainOptions deciding(TrainOptions o) {
  o.retrofit.offset = 1e-6;
  o.stages = {{find_stage("zero-out"), 5}, {find_stage("retrofit"), 9}};
  return o;
}

TEST_F(TrainerTest, LeavesAModelForEachRatioOnTheWay) {
  TrainOptions plain = deciding(options("plain")), straight = deciding(options("ratios"));
  TrainOptions resumed = deciding(options("again"));
  straight.retrofit.save_at_cr = resumed.retrofit.save_at_cr = {1.01, 1.02, 1.99};
  ASSERT_EQ(run(plain), Outcome::kFinished);
  expect_resumed_is_straight(straight, resumed);
  const auto bytes = [](const fs::path& dir) { return read_text_file(dir / "model.safetensors"); };
  EXPECT_EQ(bytes(straight.out_dir), bytes(plain.out_dir)) << "saving changed the training";
  for (const double cr : {1.01, 1.02}) {
    const std::string folder = ratio_folder(cr);
    const model::ModelConfig config = model::read_model_config(straight.out_dir / folder);
    EXPECT_EQ(config.dmc->target_cr, cr);
    EXPECT_EQ(config.dmc->stage, "retrofit");
    EXPECT_EQ(config.dmc->trained_tokens, (5 + 2) * 2 * 48);
    EXPECT_EQ(bytes(straight.out_dir / folder), bytes(resumed.out_dir / folder));
    EXPECT_TRUE(fs::exists(straight.out_dir / folder / "tokenizer.json"));
  }
  EXPECT_FALSE(fs::exists(straight.out_dir / ratio_folder(1.99))) << "so far it did not come";
  EXPECT_THROW(run(straight), Error) << "models of another run must not be overwritten";
}

// What is kept on the way is what a run that ends there would leave.
TEST_F(TrainerTest, AModelOnTheWayIsTheOneOfARunThatEndsThere) {
  TrainOptions longer = deciding(options("longer"));
  longer.retrofit.save_at_cr = {1.01};
  ASSERT_EQ(run(longer), Outcome::kFinished);
  TrainOptions stopped = deciding(options("stopped"));
  ASSERT_EQ(run(stopped, 7), Outcome::kInterrupted);
  nn::Decoder model = nn::Decoder::load(stopped.model_dir);
  for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  AdamW optimizer(model.parameters(), stopped);
  load_checkpoint(stopped, model, optimizer);
  const at::NoGradGuard no_grad;
  nn::scale_decision_channel(model, stopped.retrofit.decision_scale);
  const nn::Decoder kept = nn::Decoder::load(longer.out_dir / ratio_folder(1.01));
  for (const auto& [name, parameter] : model.parameters()) {
    EXPECT_TRUE(at::equal(parameter, kept.parameter(name))) << name;
  }
}

// A batch in parts is the same batch: noise is each row's own. Only the compression loss, which is
// about a part's decisions, may differ.
TEST_F(TrainerTest, ABatchInPartsIsTheSame) {
  for (const bool adapter : {false, true}) {
    const std::string name = adapter ? "adapter" : "channel";
    TrainOptions whole = adapter ? adapter_options("whole-" + name) : options("whole-" + name);
    TrainOptions parts = adapter ? adapter_options("parts-" + name) : options("parts-" + name);
    whole.batch = parts.batch = 4;
    parts.accumulate = 2;
    ASSERT_EQ(run(whole), Outcome::kFinished);
    ASSERT_EQ(run(parts), Outcome::kFinished);
    const auto expected = log_lines(whole.out_dir), got = log_lines(parts.out_dir);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      for (const char* const number : {"loss", "cr", "gradient_norm"}) {
        const double wanted = nlohmann::json::parse(expected[i]).at(number).get<double>();
        EXPECT_NEAR(nlohmann::json::parse(got[i]).at(number).get<double>(), wanted, 0.01 * wanted)
            << name << ", " << number << " of step " << i + 1;
      }
    }
  }
  TrainOptions o = options("odd");
  o.batch = 4;
  o.accumulate = 3;
  EXPECT_THROW(run(o), Error);
}

// What is measured on the way and at the end is the model as it would be served at that moment.
TEST_F(TrainerTest, AJudgeSeesServedModelsAndItsVerdictIsInTheCard) {
  TrainOptions o = options("judged");
  o.evaluate_every = 4;  // steps 4 (the channel fades), 8 (retrofit) and 12 (finetune) of 14
  std::vector<std::string> stages;
  const auto stage_of = [](const fs::path& model) {
    EXPECT_TRUE(fs::exists(model / "tokenizer.json"));
    return model::read_model_config(model).dmc->stage;
  };
  const Judge judge{.measure =
                        [&](const fs::path& model) {
                          stages.push_back(stage_of(model));
                          return HeldOut{2.5, 1.25};
                        },
                    .conclude =
                        [&](const fs::path& model) {
                          EXPECT_EQ(model, o.out_dir);
                          stages.push_back("end: " + stage_of(model));
                          return Verdict{{{"start", 1.0, 2.0, {}}, {"result", 1.5, 2.1, {{1.5}}}},
                                         "3 windows",
                                         "Use it."};
                        }};
  ASSERT_EQ(run_training(
                o, [] { return false; }, {}, dist::alone(), judge),
            Outcome::kFinished);
  EXPECT_EQ(stages, (std::vector<std::string>{"retrofit", "finetune", "end: finetune"}));
  const auto eighth = nlohmann::json::parse(log_lines(o.out_dir).at(7));
  EXPECT_EQ(eighth.at("held_out_loss"), 2.5);
  EXPECT_EQ(eighth.at("held_out_cr"), 1.25);
  EXPECT_FALSE(nlohmann::json::parse(log_lines(o.out_dir).at(3)).contains("held_out_loss"));
  EXPECT_FALSE(fs::exists(o.out_dir / "being-measured"));
  EXPECT_NE(read_text_file(o.out_dir / "README.md").find("Use it."), std::string::npos);
}

TEST_F(TrainerTest, AWindowThatLeavesTooFewTokensForTheRatioIsRefused) {
  TrainOptions o = options("ratio");
  o.retrofit.method = "dms";
  o.retrofit.target_cr = 4.0;
  o.retrofit.window = 1;
  o.retrofit.delay = 12;  // 13 of 48 tokens stay
  EXPECT_THROW(run(o), Error);
}

TEST_F(TrainerTest, ADelayInWhichNothingCanGoIsRefused) {
  for (const char* method : {"dms", "dmc-delayed"}) {
    TrainOptions o = options("delay");
    o.retrofit.method = method;
    o.retrofit.window = find_method(method)->window.usual;
    o.retrofit.delay = o.length - 1;
    try {
      run(o);
      FAIL() << "no token would ever have left the window";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(command_line_sentence(error).find("--delay: 47"), std::string::npos)
          << error.what();
    }
  }
}

TEST_F(TrainerTest, ResumingWithOtherOptionsIsRefused) {
  TrainOptions o = options("out");
  ASSERT_EQ(run(o, 2), Outcome::kInterrupted);
  EXPECT_THROW(run(o), Error) << "a folder with an unfinished run must not be overwritten";
  o.resume = true;
  o.retrofit.target_cr = 3.0;
  try {
    run(o);
    FAIL() << "another compression ratio was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(command_line_sentence(error).find("cr 2.0, not 3.0"), std::string::npos)
        << error.what();
  }
}

TEST_F(TrainerTest, SequencesLongerThanTheContextAreRefused) {
  TrainOptions o = options("long");
  o.length = 4096;
  try {
    run(o);
    FAIL() << "the model has no positions for it";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(command_line_sentence(error).find("--length: 4096"), std::string::npos);
  }
}

TEST_F(TrainerTest, ZeroOutLeavesDecisionRowsExactlyZero) {
  TrainOptions o = options("zeroed");
  o.stages = {{find_stage("zero-out"), 4}};
  ASSERT_EQ(run(o), Outcome::kFinished);
  const nn::Decoder model = nn::Decoder::load(o.out_dir);
  for (const char* name : {"q_proj", "k_proj"}) {
    const at::Tensor weight =
        model.parameter("model.layers.1.self_attn." + std::string(name) + ".weight");
    const at::Tensor rows = weight.view({-1, 16, weight.size(1)});
    EXPECT_EQ(rows.select(1, 15).abs().max().item<float>(), 0.0f);
    EXPECT_GT(rows.select(1, 14).abs().max().item<float>(), 0.0f);
  }
}

// Trained for a ratio of 1, nothing is asked for: with decisions that never merge the model is the
// dense one.
TEST_F(TrainerTest, TargetRatioOfOneIsTheDenseModel) {
  nn::Decoder model = nn::Decoder::load(root_ / "model");
  nn::clear_decision_channel(model);
  TrainOptions o = options("unused");
  o.retrofit.target_cr = 1.0;
  o.retrofit.offset = 1e4;  // no noise reaches it: alpha is 0
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = at::randint(0, 2048, {2, 48}, at::kLong);
  const auto attention = find_stage("finetune")->attention(model.config(), o);
  attention->begin_step({0, 1, 0, 1, 1.0, o.retrofit.offset});
  nn::DenseAttention dense(48, model::rope_frequencies(model.config()));
  const at::Tensor ours = model.hidden(tokens, *attention), theirs = model.hidden(tokens, dense);
  EXPECT_LT(((ours - theirs).norm() / theirs.norm()).item<double>(), 1e-5);
  EXPECT_EQ(attention->extra_loss().item<double>(), 0.0);
  EXPECT_EQ(attention->decided_fraction().item<double>(), 0.0);
}

// Products in bf16 change a run a little, its weights stay f32, and it may go on in f32.
TEST_F(TrainerTest, PrecisionIsNoPartOfARun) {
  TrainOptions exact = options("f32"), rounded = options("bf16");
  rounded.precision = "bf16";
  ASSERT_EQ(run(exact), Outcome::kFinished);
  ASSERT_EQ(run(rounded, 8), Outcome::kInterrupted);
  const model::SafetensorsFile checkpoint(checkpoint_path(rounded.out_dir));
  for (const auto& [name, tensor] : checkpoint.tensors()) EXPECT_EQ(tensor.dtype, DType::kF32);
  rounded.precision = "f32";
  rounded.resume = true;
  ASSERT_EQ(run(rounded), Outcome::kFinished);
  const auto expected = log_lines(exact.out_dir), got = log_lines(rounded.out_dir);
  ASSERT_EQ(got.size(), expected.size());
  EXPECT_NE(got.front(), expected.front());
  for (size_t i = 0; i < got.size(); ++i) {
    for (const char* const number : {"loss", "cr"}) {
      const double wanted = nlohmann::json::parse(expected[i]).at(number).get<double>();
      EXPECT_NEAR(nlohmann::json::parse(got[i]).at(number).get<double>(), wanted, 0.02 * wanted)
          << number << " of step " << i + 1;
    }
  }
}

TEST_F(TrainerTest, AGpuThatIsNotThereIsRefused) {
  if (at::hasCUDA()) GTEST_SKIP() << "there is one";
  TrainOptions o = options("nowhere");
  o.device = "cuda";
  try {
    run(o);
    FAIL() << "trained without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(command_line_sentence(error).rfind("--device", 0), 0u) << error.what();
  }
  EXPECT_FALSE(fs::exists(o.out_dir));
}

// A checkpoint is a file from somewhere, too.
TEST_F(TrainerTest, DamagedProgressIsRefused) {
  TrainOptions o = options("hostile");
  ASSERT_EQ(run(o, 3), Outcome::kInterrupted);
  o.resume = true;
  const model::SafetensorsFile whole(checkpoint_path(o.out_dir));
  for (
      const char* progress :
      {"", "[]", "{}", "{\"step\": 3", R"({"step": -1, "tokens": 0, "compression_weight": 0})",
       R"({"step":3,"tokens":0,"compression_weight":0,"decision_offset":0,"ratios_saved":0,"feeds":[]})",
       R"({"step":3,"tokens":0,"compression_weight":0,"decision_offset":0,"ratios_saved":0,"feeds":[[0,0],[0,0]]})",
       R"({"step":3,"tokens":0,"compression_weight":0,"decision_offset":0,"ratios_saved":0,"feeds":[[0,0,-1],[0,0,0]]})",
       R"({"step":3,"tokens":0,"compression_weight":"x","decision_offset":0,"ratios_saved":0,"feeds":[[0,0,0],[0,0,0]]})"}) {
    auto metadata = whole.metadata();
    metadata["progress"] = progress;
    model::write_safetensors(checkpoint_path(o.out_dir), whole.tensors(), metadata);
    try {
      run(o);
      ADD_FAILURE() << "accepted: " << progress;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData) << progress << ": " << error.what();
    }
  }
}

// A save that fails (here: no file may grow past a few KB) leaves the checkpoint before it whole.
TEST_F(TrainerTest, FullDiskKeepsTheEarlierCheckpoint) {
  TrainOptions o = options("disk");
  ASSERT_EQ(run(o, 3), Outcome::kInterrupted);
  const std::string before = read_text_file(o.out_dir / "checkpoint.safetensors");
  const std::string script =
      "ulimit -f 8; trap '' XFSZ; exec " + fs::read_symlink("/proc/self/exe").string() +
      " --gtest_also_run_disabled_tests --gtest_filter=FullDisk.DISABLED_Child";
  setenv("DMC_TEST_OUT", o.out_dir.c_str(), 1);
  setenv("DMC_TEST_MODEL", o.model_dir.c_str(), 1);
  EXPECT_EQ(std::system(("sh -c \"" + script + "\" > /dev/null 2>&1").c_str()), 0);
  EXPECT_EQ(read_text_file(o.out_dir / "checkpoint.safetensors"), before);
  o.resume = true;
  EXPECT_EQ(run(o), Outcome::kFinished);
}

// Run by the test above in a process of its own, with a limit on file sizes.
TEST(FullDisk, DISABLED_Child) {
  const nn::Decoder model = nn::Decoder::load(std::getenv("DMC_TEST_MODEL"));
  const auto path = fs::path(std::getenv("DMC_TEST_OUT")) / "checkpoint.safetensors";
  const nn::TensorsByName tensors(model.parameters().begin(), model.parameters().end());
  try {
    model::write_safetensors(path, nn::to_views(tensors));
    FAIL() << "the write should have hit the limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(command_line_sentence(error).find(path.string()), std::string::npos);
  }
}

}  // namespace
}  // namespace dmc::train

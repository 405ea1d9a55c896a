// For tests that train: a tiny model, options for it, and what its runs left.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/temp_folder.h"
#include "model/config_file.h"
#include "nn/decoder.h"
#include "train/stage.h"
#include "train/trainer.h"

namespace dmc::train {

// A folder with a tiny random model that borrows the built-in tokenizer, and this test's own source
// code as the text to train on.
class TrainerTest : public testing::Test {
 protected:
  void SetUp() override {
    model::ModelConfig config = model::read_model_config("models/builtin");
    config.hidden_size = 32;
    config.intermediate_size = 48;
    config.num_layers = 2;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    nn::Decoder::create(config, 1).save(root_ / "model", {at::kFloat});
    std::filesystem::copy_file("models/builtin/tokenizer.json", root_ / "model/tokenizer.json");
  }

  TrainOptions options(const std::string& out) const {
    TrainOptions o;
    o.model_dir = root_ / "model";
    o.out_dir = root_ / out;
    o.data = {"docs/algorithm.md"};
    o.batch = 2;
    o.length = 48;
    o.learning_rate = 3e-3;
    o.warmup_steps = 2;
    o.checkpoint_every = 1000;
    o.retrofit.target_cr = 2.0;
    o.stages = {
        {find_stage("zero-out"), 5}, {find_stage("retrofit"), 6}, {find_stage("finetune"), 3}};
    return o;
  }

  TrainOptions adapter_options(const std::string& out) const {
    TrainOptions o = options(out);
    o.retrofit.decisions = "adapter";
    o.stages = {{find_stage("retrofit"), 5}, {find_stage("finetune"), 6}};
    return o;
  }

  const TempFolder folder_of_test_;
  const std::filesystem::path root_ = folder_of_test_.path();
};

// What must be equal between two runs of the same thing: all but the clock.
inline std::vector<std::string> log_lines(const std::filesystem::path& out) {
  std::ifstream in(out / "train.jsonl");
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    auto record = nlohmann::json::parse(line);
    record.erase("tokens_per_second");
    lines.push_back(record.dump());
  }
  return lines;
}

inline Outcome run(const TrainOptions& options, int64_t stop_after = 1 << 30,
                   dist::Group& group = dist::alone()) {
  int64_t steps = 0;
  return run_training(
      options, [&] { return ++steps >= stop_after; }, {}, group);
}

}  // namespace dmc::train

#include "io/model_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace dmc::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ModelConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("dmc_config_test_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  ModelConfig read(const std::string& text) const {
    std::ofstream(dir_ / "config.json") << text;
    return read_model_config(dir_);
  }
  std::string complaint(const json& root) const {
    try {
      read(root.dump());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return error.what();
    }
    return "";
  }
  fs::path dir_;
};

json good() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 128},
          {"rope_theta", 10000.0},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", true},
          {"eos_token_id", {1, 2}},
          {"some_future_key", {{"kept", true}}}};
}

TEST_F(ModelConfigTest, ReadsBothFormsOfRope) {
  ModelConfig config = read(good().dump());
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int64_t>{1, 2}));
  json root = good();
  root.erase("rope_theta");
  root["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  EXPECT_EQ(read(root.dump()).rope_theta, 5e5);
}

TEST_F(ModelConfigTest, RoundTripKeepsUnknownKeysAndDmc) {
  ModelConfig config = read(good().dump());
  config.dmc = DmcConfig{4.0, 12, 3.0, "finetune", 123, 2048};
  const std::string written = model_config_json(config);
  const ModelConfig again = read(written);
  EXPECT_EQ(again.architecture, "DmcLlamaForCausalLM");
  EXPECT_EQ(again.dmc->decision_offset, 3.0);
  EXPECT_EQ(again.dmc->trained_tokens, 123);
  EXPECT_EQ(json::parse(written)["some_future_key"]["kept"], true);
  config.dmc.reset();
  EXPECT_EQ(read(model_config_json(config)).architecture, "LlamaForCausalLM");
}

TEST_F(ModelConfigTest, EveryNeededKeyIsMissed) {
  for (const char* key : {"architectures", "model_type", "hidden_act", "vocab_size", "hidden_size",
                          "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "max_position_embeddings", "rope_theta", "rms_norm_eps"}) {
    json root = good();
    root.erase(key);
    const std::string said = complaint(root);
    EXPECT_NE(said.find("config.json"), std::string::npos) << key;
    EXPECT_NE(said.find(std::string("\"") + key + "\" is missing"), std::string::npos) << said;
  }
}

TEST_F(ModelConfigTest, WhatItCannotRunIsRefusedByName) {
  const std::pair<const char*, json> kWrong[] = {{"architectures", {"BertModel"}},
                                                 {"architectures", "x"},
                                                 {"hidden_act", "gelu"},
                                                 {"attention_bias", true},
                                                 {"rope_scaling", {{"type", "linear"}}},
                                                 {"num_key_value_heads", 3},
                                                 {"hidden_size", -1},
                                                 {"hidden_size", 1e30},
                                                 {"hidden_size", "64"},
                                                 {"num_hidden_layers", 0},
                                                 {"rms_norm_eps", 0},
                                                 {"num_attention_heads", 128},
                                                 {"head_dim", 15},
                                                 {"eos_token_id", -3},
                                                 {"eos_token_id", ~uint64_t{0}},
                                                 {"tie_word_embeddings", "yes"}};
  for (const auto& [key, value] : kWrong) {
    json root = good();
    root[key] = value;
    EXPECT_NE(complaint(root).find(key), std::string::npos) << key << " " << value;
  }
  json root = good();
  root["dmc_config"] = {{"format", 1}};
  EXPECT_NE(complaint(root), "") << "a dmc_config that lacks keys, on a dense architecture";
}

}  // namespace
}  // namespace dmc::io

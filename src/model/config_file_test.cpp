#include "model/config_file.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace dmc::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ModelConfigTest : public testing::Test {
 protected:
  model::ModelConfig read(const std::string& text) const {
    std::ofstream(dir_ / "config.json") << text;
    return read_model_config(dir_);
  }
  std::string complaint(const json& root) const {
    try {
      read(root.dump());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
      return error.what();
    }
    return "";
  }
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
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

// Each asked for gigabytes, or ended in a failed check, behind a file of some hundred bytes.
TEST_F(ModelConfigTest, NoKeyAsksForWhatNobodyHas) {
  json root = good();
  root["num_hidden_layers"] = 1'000'000;
  EXPECT_NE(complaint(root).find("num_hidden_layers"), std::string::npos);
  root = good();
  root["max_position_embeddings"] = 1 << 20;
  root["head_dim"] = 4096;
  EXPECT_NE(complaint(root).find("rotary"), std::string::npos);
  root = good();
  root["model_type"] = "dmc_llama";
  root["architectures"] = {"DmcLlamaForCausalLM"};
  root["dmc_config"] = {{"format", 1},         {"decision_channel", -1},
                        {"method", "dmc"},     {"pool_before_rope", true},
                        {"window", 12},        {"target_cr", 0.5},
                        {"stage", "finetune"}, {"decision_offset", 5.0},
                        {"trained_tokens", 0}, {"max_trained_length", 0}};
  EXPECT_NE(complaint(root).find("target_cr"), std::string::npos);
  root["dmc_config"]["target_cr"] = 1.0;
  EXPECT_EQ(complaint(root), "");
}

TEST_F(ModelConfigTest, ReadsBothFormsOfRope) {
  model::ModelConfig config = read(good().dump());
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int64_t>{1, 2}));
  json root = good();
  root.erase("rope_theta");
  root["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  EXPECT_EQ(read(root.dump()).rope->theta, 5e5);
  root.erase("rope_parameters");
  EXPECT_EQ(read(root.dump()).rope->theta, 1e4) << "Llama 2 came before the key";
}

TEST_F(ModelConfigTest, ReadsBothFormsOfLlama3Scaling) {
  const json scaling = {{"rope_type", "llama3"},  {"factor", 8.0},
                        {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                        {"rope_theta", 5e5},      {"original_max_position_embeddings", 64}};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    json root = good();
    root[key] = scaling;
    const model::RopeConfig rope = *read(root.dump()).rope;
    EXPECT_EQ(rope.scaling, model::RopeConfig::Scaling::kLlama3);
    EXPECT_EQ(rope.original_positions, 64);
    for (const char* needed : {"factor", "low_freq_factor", "original_max_position_embeddings"}) {
      root[key].erase(needed);
      EXPECT_NE(complaint(root).find(needed), std::string::npos);
      root[key] = scaling;
    }
    root[key]["high_freq_factor"] = 1.0;
    EXPECT_NE(complaint(root).find("high_freq_factor"), std::string::npos);
  }
}

TEST_F(ModelConfigTest, SlidingWindowLimitsTheContext) {
  json root = good();
  root["architectures"] = {"MistralForCausalLM"};
  root["model_type"] = "mistral";
  EXPECT_EQ(read(root.dump()).context(), 128);
  root["sliding_window"] = 100;
  EXPECT_EQ(read(root.dump()).context(), 100);
  EXPECT_EQ(json::parse(model_config_json(read(root.dump())))["max_position_embeddings"], 128);
}

TEST_F(ModelConfigTest, QwenSaysWhetherItsWindowIsUsed) {
  json root = good();
  root["architectures"] = {"Qwen2ForCausalLM"};
  root["model_type"] = "qwen2";
  root["sliding_window"] = 100;
  root["layer_types"] = {"full_attention", "full_attention"};
  EXPECT_EQ(read(root.dump()).context(), 128);
  root["layer_types"][1] = "sliding_attention";
  EXPECT_NE(complaint(root).find("layer_types"), std::string::npos);
  root["use_sliding_window"] = true;
  EXPECT_EQ(read(root.dump()).context(), 100);
}

TEST_F(ModelConfigTest, RoundTripKeepsUnknownKeysAndDmc) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{4.0, 12, 3.0, "finetune", 123, 2048};
  const std::string written = model_config_json(config);
  const model::ModelConfig again = read(written);
  EXPECT_EQ(again.architecture, "DmcLlamaForCausalLM");
  EXPECT_EQ(again.dmc->decision_offset, 3.0);
  EXPECT_EQ(again.dmc->trained_tokens, 123);
  EXPECT_EQ(json::parse(written)["some_future_key"]["kept"], true);
  config.dmc.reset();
  EXPECT_EQ(read(model_config_json(config)).architecture, "LlamaForCausalLM");
}

TEST_F(ModelConfigTest, TheMethodSurvivesARoundTripAndOthersAreRefused) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{};
  config.dmc->method = "dms";
  config.dmc->delay = 4096;
  const std::string written = model_config_json(config);
  EXPECT_EQ(read(written).dmc->method, "dms");
  EXPECT_EQ(read(written).dmc->delay, 4096);
  EXPECT_EQ(json::parse(written)["dmc_config"]["window"], 4096) << "as files have had it";
  json root = json::parse(written);
  root["dmc_config"]["method"] = "h2o";
  EXPECT_NE(complaint(root).find("\"dmc\" or \"dms\" or \"dmc-delayed\""), std::string::npos)
      << complaint(root);
  root["dmc_config"]["method"] = "dmc";
  EXPECT_NE(complaint(root).find("window"), std::string::npos) << "no slot averages 4,096 tokens";
}

TEST_F(ModelConfigTest, DelayAndCarrySurviveARoundTrip) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{.window = 12, .method = "dmc-delayed", .delay = 64};
  EXPECT_FALSE(read(model_config_json(config)).dmc->importance_offset);
  config.dmc->importance_offset = -4.0;
  const json written = json::parse(model_config_json(config));
  const model::DmcConfig again = *read(written.dump()).dmc;
  EXPECT_EQ(again.method, "dmc-delayed");
  EXPECT_EQ(again.window, 12);
  EXPECT_EQ(again.delay, 64);
  EXPECT_EQ(again.importance_offset, -4.0);
  for (const auto& [key, value] : {std::pair<const char*, json>{"delay", -1},
                                   {"delay", int64_t{1} << 40},
                                   {"importance_offset", "low"},
                                   {"zero_after_rope", true}}) {
    json wrong = written;
    wrong["dmc_config"][key] = value;
    EXPECT_NE(complaint(wrong).find(key), std::string::npos) << complaint(wrong);
  }
}

TEST_F(ModelConfigTest, TheDecisionSourceSurvivesARoundTripAndOthersAreRefused) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{};
  EXPECT_TRUE(read(model_config_json(config)).has_decision_channel());
  config.dmc->decision_source = "adapter";
  const json written = json::parse(model_config_json(config));
  EXPECT_TRUE(read(written.dump()).has_adapter());
  EXPECT_FALSE(read(written.dump()).has_decision_channel());
  EXPECT_FALSE(written["dmc_config"].contains("decision_channel"))
      << "a program that knows no adapters must not take the model for one without";

  json root = written;
  root["dmc_config"]["decision_source"] = "oracle";
  EXPECT_NE(complaint(root).find("\"neuron\" or \"adapter\""), std::string::npos);
  root["dmc_config"].erase("decision_source");
  EXPECT_NE(complaint(root).find("decision_channel"), std::string::npos);
  root = written;
  root["dmc_config"]["zero_after_rope"] = true;
  EXPECT_NE(complaint(root).find("zero_after_rope"), std::string::npos);
}

TEST_F(ModelConfigTest, EveryNeededKeyIsMissed) {
  for (const char* key : {"architectures", "model_type", "hidden_act", "vocab_size", "hidden_size",
                          "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "max_position_embeddings", "rms_norm_eps"}) {
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
                                                 {"model_type", "mamba"},
                                                 {"rope_scaling", {{"type", "yarn"}}},
                                                 {"partial_rotary_factor", 0.5},
                                                 {"max_position_embeddings", 1 << 21},
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

TEST_F(ModelConfigTest, OtherQuantizationsAreRefusedByName) {
  model::ModelConfig config = read(good().dump());
  config.int8_weights = true;
  const json root = json::parse(model_config_json(config));
  EXPECT_TRUE(read(root.dump()).int8_weights);
  const std::pair<const char*, json> kWrong[] = {
      {"/quantization_config/quant_method", "gptq"},
      {"/quantization_config/format", "pack-quantized"},
      {"/quantization_config/config_groups", json::array()},
      {"/quantization_config/config_groups/group_0/weights/num_bits", 4},
      {"/quantization_config/config_groups/group_0/weights/strategy", "group"},
      {"/quantization_config/config_groups/group_0/weights/symmetric", false}};
  for (const auto& [where, value] : kWrong) {
    json wrong = root;
    wrong[json::json_pointer(where)] = value;
    const std::string key = std::string(where).substr(std::string(where).rfind('/') + 1);
    EXPECT_NE(complaint(wrong).find(key), std::string::npos) << where;
  }
}

TEST_F(ModelConfigTest, RetrofittedModelsHaveATypeOfTheirOwn) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{.target_cr = 4.0, .stage = "finetune"};
  json root = json::parse(model_config_json(config));
  EXPECT_EQ(root["model_type"], "dmc_llama");
  EXPECT_EQ(read(root.dump()).model_type, "llama");
  root["model_type"] = "llama";  // as they were written first
  EXPECT_EQ(read(root.dump()).model_type, "llama");
  config.dmc.reset();
  EXPECT_EQ(json::parse(model_config_json(config))["model_type"], "llama");
  json dense = good();
  dense["model_type"] = "dmc_llama";
  EXPECT_NE(complaint(dense).find("model_type"), std::string::npos);
}

TEST_F(ModelConfigTest, WhatMegatronsModelsDoOtherwiseSurvivesARoundTrip) {
  model::ModelConfig config = read(good().dump());
  config.dmc = model::DmcConfig{.target_cr = 4.0, .stage = "finetune"};
  const std::string usual = model_config_json(config);
  EXPECT_EQ(usual.find("zero_after_rope"), std::string::npos);
  EXPECT_EQ(usual.find("importance_epsilon"), std::string::npos);
  EXPECT_FALSE(read(usual).dmc->zero_after_rope);
  config.dmc->zero_after_rope = true;
  config.dmc->importance_epsilon = 0.0078125;
  const model::ModelConfig again = read(model_config_json(config));
  EXPECT_TRUE(again.dmc->zero_after_rope);
  EXPECT_EQ(again.dmc->importance_epsilon, 0.0078125);
}

}  // namespace
}  // namespace dmc::model

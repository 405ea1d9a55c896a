// What holds for every family in the table.
#include "model/families/family.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "model/adapter.h"
#include "model/families/family_testing.h"
#include "model/quantization.h"
#include "model/rope_frequencies.h"

namespace dmc::model {
namespace {

std::vector<LinearSource> matrices(const DecoderLayout& layout) {
  std::vector<LinearSource> all = {layout.head_transform, layout.head};
  for (const LayerLayout& l : layout.layers) {
    all.insert(all.end(), {l.q, l.k, l.v, l.o, l.gate, l.up, l.down, l.decision_proj});
  }
  std::erase_if(all, [](const LinearSource& source) { return !source.present(); });
  return all;
}

std::vector<NormSource> norms(const DecoderLayout& layout) {
  std::vector<NormSource> all = {layout.embedding_norm, layout.final_norm, layout.head_norm};
  for (const LayerLayout& l : layout.layers) {
    all.insert(all.end(), {l.attention_norm, l.mlp_norm, l.q_norm, l.k_norm, l.decision_norm});
  }
  return all;
}

class EachFamily : public testing::TestWithParam<Family> {};

TEST_P(EachFamily, ConfigSurvivesARoundTrip) {
  const model::ModelConfig config = tiny_config(GetParam());
  EXPECT_EQ(config.architecture, GetParam().dense_architecture);
  EXPECT_EQ(model_config_json(config), config.source_json);
  EXPECT_EQ("Dmc" + std::string(GetParam().dense_architecture), GetParam().dmc_architecture);
}

TEST_P(EachFamily, MatricesLieInsideTheirTensors) {
  const model::ModelConfig config = tiny_config(GetParam());
  const DecoderLayout layout = decoder_layout(config);
  ASSERT_EQ(layout.layers.size(), 2u);
  for (const LinearSource& source : matrices(layout)) {
    std::vector<int64_t> shape = layout.shapes.at(source.weight);
    if (source.transposed) std::ranges::reverse(shape);
    EXPECT_EQ(shape.at(1), source.columns) << source.weight;
    EXPECT_LE(source.first + source.rows, shape.at(0)) << source.weight;
    if (source.bias.empty()) continue;
    EXPECT_EQ(layout.shapes.at(source.bias), std::vector<int64_t>{shape.at(0)}) << source.bias;
  }
}

// A tensor that nothing reads would be trained for nothing, one that is read twice is a mix-up.
void expect_all_tensors_used(const DecoderLayout& layout) {
  std::set<std::string> used = {layout.token_embedding, layout.position_embedding,
                                layout.token_type_embedding, ""};
  for (const LinearSource& source : matrices(layout)) used.insert({source.weight, source.bias});
  for (const NormSource& norm : norms(layout)) used.insert({norm.weight, norm.bias});
  used.erase("");
  std::set<std::string> stored;
  for (const auto& [name, shape] : layout.shapes) stored.insert(name);
  EXPECT_EQ(used, stored);
}

TEST_P(EachFamily, EveryTensorIsUsed) {
  expect_all_tensors_used(decoder_layout(tiny_config(GetParam())));
}

TEST_P(EachFamily, AnAdapterAddsTwoTensorsALayer) {
  model::ModelConfig config = tiny_config(GetParam());
  const DecoderLayout base = decoder_layout(config);
  EXPECT_TRUE(adapter_tensors(base).empty());
  for (const auto& [method, outputs_a_head] : {std::pair{"dmc", 2}, std::pair{"dms", 1}}) {
    config.dmc = model::DmcConfig{.method = method, .decision_source = "adapter"};
    const DecoderLayout layout = decoder_layout(config);
    expect_all_tensors_used(layout);
    const std::set<std::string> names = adapter_tensors(layout);
    EXPECT_EQ(names.size(), 2u * layout.layers.size());
    EXPECT_EQ(layout.shapes.size(), base.shapes.size() + names.size());
    const std::vector<int64_t> shape = {outputs_a_head * config.num_kv_heads, config.hidden_size};
    for (const LayerLayout& layer : layout.layers) {
      EXPECT_EQ(layout.shapes.at(layer.decision_proj.weight), shape);
      EXPECT_EQ(
          layer.decision_norm.weight.substr(0, layer.decision_norm.weight.rfind("decision")),
          layer.q.weight.substr(0, layer.q.weight.rfind('.', layer.q.weight.rfind('.') - 1) + 1))
          << "it stands beside the query projection";
    }
    for (const std::string& name : int8_matrices(layout)) EXPECT_FALSE(names.contains(name));
  }
}

TEST_P(EachFamily, SlicesOfATensorDoNotOverlap) {
  const DecoderLayout layout = decoder_layout(tiny_config(GetParam()));
  std::map<std::string, int64_t> rows;
  for (const LinearSource& source : matrices(layout)) rows[source.weight] += source.rows;
  for (const auto& [name, count] : rows) {
    const std::vector<int64_t>& shape = layout.shapes.at(name);
    EXPECT_TRUE(count == shape[0] || count == shape[1]) << name;
  }
}

TEST_P(EachFamily, WeightsOfEightBitsSurviveARoundTrip) {
  model::ModelConfig config = tiny_config(GetParam());
  const DecoderLayout layout = decoder_layout(config);
  const std::set<std::string> names = int8_matrices(layout);
  EXPECT_FALSE(names.contains(layout.token_embedding));
  for (const LinearSource& source : matrices(layout)) {
    const bool rows = !source.transposed && source.weight != layout.token_embedding;
    EXPECT_EQ(names.contains(source.weight), rows) << source.weight;
  }
  if (names.empty()) return;
  config.int8_weights = true;
  config = reread(config);
  EXPECT_TRUE(config.int8_weights);
  config.int8_weights = false;
  EXPECT_FALSE(reread(config).int8_weights);
}

INSTANTIATE_TEST_SUITE_P(Table, EachFamily, testing::ValuesIn(families().begin(), families().end()),
                         [](const auto& test) { return std::string(test.param.model_type); });

TEST(RopeFrequencies, ScalingSlowsSlowPairsOnly) {
  model::ModelConfig config;
  config.head_dim = 64;
  const std::vector<double> plain = rope_frequencies(config);
  EXPECT_EQ(plain.front(), 1.0);
  EXPECT_NEAR(plain.back(), std::pow(10000.0, -62.0 / 64.0), 1e-15);

  config.rope->scaling = model::RopeConfig::Scaling::kLlama3;
  config.rope->factor = 8.0;
  config.rope->original_positions = 256;
  const std::vector<double> scaled = rope_frequencies(config);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_EQ(scaled.back(), plain.back() / 8.0);
  for (size_t i = 1; i < plain.size(); ++i) {
    EXPECT_LT(scaled[i], scaled[i - 1]) << "blending keeps the order of pair " << i;
    EXPECT_GE(scaled[i], plain[i] / 8.0);
  }
  config.rope.reset();
  EXPECT_TRUE(rope_frequencies(config).empty());
}

}  // namespace
}  // namespace dmc::model

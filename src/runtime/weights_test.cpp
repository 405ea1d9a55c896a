// The shards of a checkpoint hold, number by number, what the whole model does.
#include "runtime/weights.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/rng.h"
#include "base/temp_folder.h"
#include "model/families/family_testing.h"
#include "model/model_files.h"
#include "model/quantization.h"
#include "model/safetensors.h"

namespace dmc::runtime {
namespace {

using model::Part;

std::vector<float> row_of(const kernels::PackedWeights& weights, int64_t row) {
  std::vector<float> numbers(static_cast<size_t>(weights.inputs()));
  weights.get_row(row, numbers.data());
  return numbers;
}

// The ranges of rows, one below the other, of these columns.
void expect_part(const kernels::PackedWeights& part, const kernels::PackedWeights& whole,
                 const std::vector<Part>& rows, const Part& columns) {
  ASSERT_EQ(part.type(), whole.type());
  ASSERT_EQ(part.inputs(), columns.count);
  int64_t output = 0;
  for (const Part& range : rows) {
    for (int64_t r = range.first; r < range.first + range.count; ++r) {
      const std::vector<float> all = row_of(whole, r);
      const std::vector<float> wanted(all.begin() + columns.first,
                                      all.begin() + columns.first + columns.count);
      ASSERT_EQ(row_of(part, output++), wanted) << "row " << r;
    }
  }
  EXPECT_EQ(part.outputs(), output);
}

void expect_rows(const Linear& part, const Linear& whole, const std::vector<Part>& rows) {
  expect_part(part.weights, whole.weights, rows, {0, whole.weights.inputs()});
  std::vector<float> bias;
  for (const Part& range : rows) {
    if (whole.bias.empty()) break;
    const auto first = whole.bias.begin() + range.first;
    bias.insert(bias.end(), first, first + range.count);
  }
  EXPECT_EQ(part.bias, bias);
}

void expect_columns(const Linear& part, const Linear& whole, const Part& columns, int rank) {
  expect_part(part.weights, whole.weights, {{0, whole.weights.outputs()}}, columns);
  EXPECT_EQ(part.bias, rank == 0 ? whole.bias : std::vector<float>{}) << "it is added once";
}

void expect_layer(const LayerWeights& part, const LayerWeights& whole, const Model& shard) {
  const model::ModelConfig& c = shard.config;
  const model::ShardPlan plan = shard.shard();
  const int64_t d = c.head_dim;
  const auto heads = [d](int64_t before, const Part& range) {
    return Part{(before + range.first) * d, range.count * d};
  };
  expect_rows(part.qkv, whole.qkv,
              {heads(0, plan.heads), heads(c.num_heads, plan.kv_heads),
               heads(c.num_heads + c.num_kv_heads, plan.kv_heads)});
  expect_columns(part.o, whole.o, heads(0, plan.heads), shard.rank);
  std::vector<Part> up = {plan.mlp};
  if (c.activation == model::Activation::kSiluGated) {
    up.push_back({c.intermediate_size + plan.mlp.first, plan.mlp.count});
  }
  expect_rows(part.up, whole.up, up);
  expect_columns(part.down, whole.down, plan.mlp, shard.rank);
  EXPECT_EQ(part.attention_norm.weight, whole.attention_norm.weight);
  ASSERT_EQ(part.adapter.has_value(), whole.adapter.has_value());
  if (!whole.adapter) return;
  std::vector<Part> said = {plan.kv_heads};
  if (c.dmc->pools()) said.push_back({c.num_kv_heads + plan.kv_heads.first, plan.kv_heads.count});
  expect_rows(part.adapter->projection, whole.adapter->projection, said);
}

void expect_shards(const std::filesystem::path& path, int ranks, std::optional<DType> type) {
  const auto whole = load_model(path, type);
  const auto shards = load_shards(path, ranks, type);
  ASSERT_EQ(std::ssize(shards), ranks);
  for (const auto& shard : shards) {
    SCOPED_TRACE("rank " + std::to_string(shard->rank) + " of " + std::to_string(ranks));
    EXPECT_EQ(shard->parameters, whole->parameters);
    const DecoderWeights &part = shard->weights, &all = whole->weights;
    const Part vocab = shard->shard().vocab, columns{0, shard->config.hidden_size};
    expect_part(*part.embedding, *all.embedding, {vocab}, columns);
    expect_part(*part.head, *all.head, {vocab}, columns);
    EXPECT_EQ(part.head == part.embedding, all.head == all.embedding);
    EXPECT_EQ(std::ssize(part.head_bias), all.head_bias.empty() ? 0 : vocab.count);
    EXPECT_TRUE(std::equal(part.head_bias.begin(), part.head_bias.end(),
                           all.head_bias.begin() + (all.head_bias.empty() ? 0 : vocab.first)));
    EXPECT_EQ(part.positions, all.positions);
    EXPECT_EQ(part.token_type, all.token_type);
    for (size_t i = 0; i < all.layers.size(); ++i) {
      expect_layer(part.layers[i], all.layers[i], *shard);
      if (testing::Test::HasFailure()) return;
    }
  }
}

// Sizes that each of 4 ranks has whole groups of 32 numbers of.
model::ModelConfig config_of(const model::Family& family, bool adapter) {
  model::ModelConfig config = model::tiny_config(family);
  config.hidden_size = config.num_heads * 32;
  config.head_dim = 32;
  config.intermediate_size = 160;
  config.vocab_size = 41;
  if (!adapter) return model::reread(config);
  config.architecture = family.dmc_architecture;
  config.dmc = model::DmcConfig{.decision_source = "adapter"};
  return model::reread(config);
}

// A checkpoint of random numbers.
class Checkpoint {
 public:
  Checkpoint(const model::ModelConfig& config, DType type) {
    const model::DecoderLayout layout = model::decoder_layout(config);
    std::set<std::string> of_8_bits;
    if (config.int8_weights) of_8_bits = model::int8_matrices(layout);
    for (const auto& [name, shape] : layout.shapes) {
      if (of_8_bits.contains(name)) {
        add(name, DType::kI8, shape);
        add(model::scale_name(name), DType::kF32, {shape[0], 1});
      } else {
        add(name, type, shape);
      }
    }
    model::write_safetensors(path() / "model.safetensors", tensors_);
    std::ofstream(path() / "config.json") << model::model_config_json(config);
  }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  void add(const std::string& name, DType type, const std::vector<int64_t>& shape) {
    std::vector<std::byte>& bytes = bytes_[name];
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    for (int64_t i = 0; i < count; ++i) {
      const auto x = static_cast<float>(rng_.uniform() - 0.5);
      const auto append = [&](auto number) {
        const auto* const first = reinterpret_cast<const std::byte*>(&number);
        bytes.insert(bytes.end(), first, first + sizeof(number));
      };
      if (type == DType::kF32) append(x);
      if (type == DType::kBF16) append(f32_to_bf16(x));
      if (type == DType::kI8) append(static_cast<int8_t>(254.0f * x));
    }
    tensors_[name] = {type, shape, bytes};
  }

  TempFolder folder_;
  Rng rng_{77};
  std::map<std::string, std::vector<std::byte>> bytes_;
  model::TensorMap tensors_;
};

class EachFamily : public testing::TestWithParam<model::Family> {};

TEST_P(EachFamily, ShardsHoldTheWholeModelsNumbers) {
  for (const bool adapter : {false, true}) {
    for (const DType stored : {DType::kF32, DType::kBF16}) {
      const Checkpoint checkpoint(config_of(GetParam(), adapter), stored);
      for (const std::optional<DType> type :
           {std::optional<DType>(), {DType::kBF16}, {DType::kI8}, {DType::kI4}}) {
        for (const int ranks : {1, 2, 4}) {
          SCOPED_TRACE("as " + std::string(type ? dtype_name(*type) : "stored"));
          expect_shards(checkpoint.path(), ranks, type);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(EachFamily, ShardsOfWeightsIn8BitsKeepTheirRowsScales) {
  model::ModelConfig config = config_of(GetParam(), false);
  if (model::int8_matrices(model::decoder_layout(config)).empty()) return;
  config.int8_weights = true;
  const Checkpoint checkpoint(config, DType::kF32);
  expect_shards(checkpoint.path(), 4, {});
  expect_shards(checkpoint.path(), 2, DType::kF32);
}

INSTANTIATE_TEST_SUITE_P(Table, EachFamily,
                         testing::ValuesIn(model::families().begin(), model::families().end()),
                         [](const auto& test) { return std::string(test.param.model_type); });

TEST(LoadShards, RefusesRanksThatCannotShareTheHeads) {
  try {
    load_shards("models/builtin-4x", 3);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.field(), "tensor_parallel_size");
  }
}

}  // namespace
}  // namespace dmc::runtime

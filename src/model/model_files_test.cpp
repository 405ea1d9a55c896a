#include "model/model_files.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "model/safetensors.h"

namespace dmc::model {
namespace {

namespace fs = std::filesystem;

class ModelFiles : public testing::Test {
 protected:
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

TEST_F(ModelFiles, EveryTensorIsInOneShardWithinTheLimit) {
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    std::map<std::string, int64_t> bytes;
    for (int i = 0; i < 40; ++i) {
      bytes["t" + std::to_string(i)] = 1 + static_cast<int64_t>(rng.below(120));
    }
    const auto shards = plan_shards(bytes, 100);
    std::map<std::string, int> seen;
    for (const Shard& shard : shards) {
      int64_t size = 0;
      for (const std::string& name : shard.tensors) {
        ++seen[name];
        size += bytes.at(name);
      }
      EXPECT_TRUE(size <= 100 || shard.tensors.size() == 1) << "round " << round;
    }
    EXPECT_EQ(seen.size(), bytes.size());
    for (const auto& [name, count] : seen) EXPECT_EQ(count, 1) << name;
  }
}

TEST_F(ModelFiles, ShardsAreReadBackThroughTheirIndex) {
  const std::vector<float> data(8, 1.5f);
  const TensorView view{DType::kF32, {8}, std::as_bytes(std::span(data))};
  write_safetensors(dir_ / "model.safetensors", {{"an earlier model's", view}});
  const auto shards = plan_shards({{"a", 32}, {"b", 32}, {"c", 32}}, 64);
  ASSERT_EQ(shards.size(), 2u);
  EXPECT_EQ(shards[1].file, "model-00002-of-00002.safetensors");
  for (const Shard& shard : shards) {
    TensorMap tensors;
    for (const std::string& name : shard.tensors) tensors[name] = view;
    write_safetensors(dir_ / shard.file, tensors);
  }
  finish_shards(dir_, shards, 96);
  EXPECT_EQ(WeightsDirectory(dir_).tensors().size(), 3u);
  EXPECT_FALSE(fs::exists(dir_ / "model.safetensors")) << "other readers prefer it to an index";

  write_safetensors(dir_ / "model.safetensors", {{"a", view}});
  finish_shards(dir_, plan_shards({{"a", 32}}, 64), 32);
  EXPECT_EQ(WeightsDirectory(dir_).tensors().size(), 1u) << "the old index must be gone";
}

}  // namespace
}  // namespace dmc::model

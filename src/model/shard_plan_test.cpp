#include "model/shard_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace dmc::model {
namespace {

ModelConfig sized(int64_t kv_heads, int64_t group, int64_t mlp, int64_t vocab) {
  ModelConfig config;
  config.num_kv_heads = kv_heads;
  config.num_heads = kv_heads * group;
  config.intermediate_size = mlp;
  config.vocab_size = vocab;
  return config;
}

TEST(ShardPlan, RanksHaveEveryPartOnceAndInOrder) {
  for (const ModelConfig& config : {sized(8, 8, 28672, 32000), sized(8, 1, 100, 50257),
                                    sized(16, 2, 11008, 97), sized(8, 4, 8, 8)}) {
    for (const int ranks : {1, 2, 4, 8}) {
      Part heads, kv_heads, mlp, vocab;
      const auto follow = [](Part& all, const Part& part) {
        EXPECT_EQ(part.first, all.count);
        EXPECT_GT(part.count, 0);
        all.count += part.count;
      };
      for (int rank = 0; rank < ranks; ++rank) {
        const ShardPlan plan = plan_shard(config, rank, ranks);
        EXPECT_EQ(plan.kv_heads.count, config.num_kv_heads / ranks);
        EXPECT_EQ(plan.heads.first, plan.kv_heads.first * config.group_size());
        EXPECT_LE(plan.vocab.count, (config.vocab_size + ranks - 1) / ranks);
        follow(heads, plan.heads), follow(kv_heads, plan.kv_heads);
        follow(mlp, plan.mlp), follow(vocab, plan.vocab);
        const ModelConfig of_rank = config_of_shard(config, plan);
        EXPECT_EQ(of_rank.group_size(), config.group_size());
        EXPECT_EQ(of_rank.vocab_size, config.vocab_size);
      }
      EXPECT_EQ(heads.count, config.num_heads);
      EXPECT_EQ(kv_heads.count, config.num_kv_heads);
      EXPECT_EQ(mlp.count, config.intermediate_size);
      EXPECT_EQ(vocab.count, config.vocab_size);
    }
  }
}

TEST(ShardPlan, TheMlpIsCutBetweenGroupsWhereEachRankCanHaveOne) {
  const ModelConfig config = sized(8, 1, 32 * 11 + 5, 100);
  for (int rank = 0; rank < 8; ++rank) EXPECT_EQ(plan_shard(config, rank, 8).mlp.first % 32, 0);
  EXPECT_EQ(plan_shard(sized(4, 1, 56, 100), 1, 4).mlp.first, 14) << "too few for that";
}

TEST(ShardPlan, SaysWhatCannotBeShared) {
  for (const auto& [config, ranks, part] : {std::tuple{sized(2, 2, 64, 64), 4, "2 KV heads"},
                                            {sized(3, 2, 64, 64), 2, "3 KV heads"},
                                            {sized(4, 1, 3, 64), 4, "MLP has 3"},
                                            {sized(4, 1, 64, 2), 4, "vocabulary 2"}}) {
    try {
      plan_shard(config, 0, ranks);
      FAIL() << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_EQ(error.field(), "tensor_parallel_size");
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace dmc::model

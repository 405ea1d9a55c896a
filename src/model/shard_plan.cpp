#include "model/shard_plan.h"

#include "base/error.h"

namespace dmc::model {
namespace {

constexpr const char* kField = "tensor_parallel_size";
constexpr int64_t kUnit = 32;  // numbers that share a scale in weights of few bits

// Units of `unit`, the last of which may be smaller, as evenly as they go.
Part share(int64_t size, int64_t unit, int rank, int ranks) {
  const int64_t units = (size + unit - 1) / unit;
  const auto begin = [&](int64_t at) { return std::min(size, units * at / ranks * unit); };
  return {begin(rank), begin(rank + 1) - begin(rank)};
}

Part share_mlp(const ModelConfig& config, int rank, int ranks) {
  const bool has_units = config.intermediate_size > kUnit * (ranks - 1);
  return share(config.intermediate_size, has_units ? kUnit : 1, rank, ranks);
}

void require_shares(const ModelConfig& config, int ranks) {
  if (config.num_kv_heads % ranks != 0) {
    throw invalid_argument(kField, "the model has " + std::to_string(config.num_kv_heads) +
                                       " KV heads, which " + std::to_string(ranks) +
                                       " ranks cannot share evenly; give a divisor of it");
  }
  if (std::min(config.intermediate_size, config.vocab_size) >= ranks) return;
  throw invalid_argument(
      kField, "the model is too small for " + std::to_string(ranks) + " ranks: its MLP has " +
                  std::to_string(config.intermediate_size) + " columns, its vocabulary " +
                  std::to_string(config.vocab_size) + " tokens");
}

}  // namespace

ShardPlan plan_shard(const ModelConfig& config, int rank, int ranks) {
  DMC_CHECK(ranks >= 1 && rank >= 0 && rank < ranks);
  require_shares(config, ranks);
  const Part kv_heads = share(config.num_kv_heads, 1, rank, ranks);
  const int64_t group = config.group_size();
  return {rank,
          ranks,
          kv_heads,
          {kv_heads.first * group, kv_heads.count * group},
          share_mlp(config, rank, ranks),
          vocabulary_part(config.vocab_size, rank, ranks)};
}

Part vocabulary_part(int64_t vocab, int rank, int ranks) { return share(vocab, 1, rank, ranks); }

ModelConfig config_of_shard(ModelConfig config, const ShardPlan& plan) {
  config.num_kv_heads = plan.kv_heads.count;
  config.num_heads = plan.heads.count;
  config.intermediate_size = plan.mlp.count;
  return config;
}

}  // namespace dmc::model

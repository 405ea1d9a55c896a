// Which part of a model each of several ranks has (tensor parallelism, as Megatron-LM cuts it).
// Matrices that make heads, the MLP's inner numbers or logits are cut by rows, those that take them
// by columns; norms, positions and the head's transform are whole on every rank.
#pragma once

#include "model/model_config.h"

namespace dmc::model {

struct Part {
  int64_t first = 0, count = 0;

  bool has(int64_t index) const { return index >= first && index < first + count; }
};

struct ShardPlan {
  int rank = 0, ranks = 1;
  Part kv_heads;  // with the query heads that read them, and what their adapter says
  Part heads;
  Part mlp;    // of intermediate_size
  Part vocab;  // rows of the head, and of the embedding, which a tied head is
};

// What `rank` of `ranks` has: KV heads as many as the others, of the rest as many within one unit.
// The MLP is cut between groups of 32, which weights of few bits share a scale in, where it has
// enough of them. Error(kInvalidArgument) naming tensor_parallel_size if the KV heads cannot be
// shared evenly, or there is too little of another part for each to have some.
ShardPlan plan_shard(const ModelConfig& config, int rank, int ranks);

Part vocabulary_part(int64_t vocab, int rank, int ranks);  // ShardPlan::vocab

// `config` with the heads and the MLP that the rank has; all else is the whole model's.
ModelConfig config_of_shard(ModelConfig config, const ShardPlan& plan);

}  // namespace dmc::model

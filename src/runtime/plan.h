// The memory that serving or training a model takes, from its shape alone. All in bytes, over all
// devices together; numbers are doubles, exact up to 2^53, because a config.json may ask for any
// size.
#pragma once

#include "base/dtype.h"
#include "model/model_config.h"

namespace dmc::runtime {

struct PlanRequest {
  int64_t batch = 1;    // sequences served together, or in one training step
  int64_t context = 0;  // tokens of each
  // Compression ratio of the cache, 1 or more; of a model whose newest tokens stay as they are (its
  // delay), that of the tokens behind them, as its decisions have it.
  double cr = 1.0;
  DType weights = DType::kBF16;  // of serving
  DType slots = DType::kBF16;    // of closed slots
  // What products take while training: kF32, or kBF16, rounded copies of weights that stay f32.
  DType training = DType::kF32;
};

struct ServingPlan {
  double weights = 0.0;
  double cache = 0.0;       // closed slots and their tables
  double open_slots = 0.0;  // f32 state: a stream's last tokens, which still merge
  double activations =
      0.0;  // of the longest prompt, prefilled in one piece, and the batch's logits

  double total() const { return weights + cache + open_slots + activations; }
};

struct TrainingPlan {
  double weights = 0.0;    // in f32, and their copies in bf16 if there are any
  double gradients = 0.0;  // in f32
  double optimizer = 0.0;  // AdamW's two moments in f32
  // What the backward pass reads, nothing computed twice. The trainer's measured peak was 1.5 times
  // this: rearranged copies and the allocator's slack.
  double activations = 0.0;

  double total() const { return weights + gradients + optimizer + activations; }
  // Of one of so many processes that share a batch: each has all weights and gradients, its share
  // of the moments (ZeRO, stage 1) and its sequences, rounded up.
  double of_process(int64_t batch, int64_t processes) const {
    const int64_t sequences = (batch + processes - 1) / processes;
    return weights + gradients + optimizer / static_cast<double>(processes) +
           activations * static_cast<double>(sequences) / static_cast<double>(batch);
  }
};

struct Plan {
  double token_bytes = 0.0;  // of closed slots, a token of a dense cache
  ServingPlan serving;
  TrainingPlan training;
};

// `parameters` is model::parameter_count of the same model. Kernels' scratch and buffers for
// communication are not counted.
Plan plan(const model::ModelConfig& config, double parameters, const PlanRequest& request);

// What one of so many ranks takes that share a served model (model::ShardPlan), the first, which
// has at least what the others have. Error(kInvalidArgument) as plan_shard().
ServingPlan serving_of_rank(const model::ModelConfig& config, double parameters,
                            const PlanRequest& request, int ranks);

// What one of so many processes takes that train a batch together by FSDP2 (dmc.torch): its share
// of all weights, gradients and moments, and what is whole for a while, the embedding, the head and
// a layer; without checkpointing of activations.
double sharded_training(const model::ModelConfig& config, double parameters,
                        const PlanRequest& request, int64_t processes);

}  // namespace dmc::runtime

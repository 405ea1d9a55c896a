// A decoder's weights as inference wants them: packed for streaming, in the precision asked for.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/dtype.h"
#include "kernels/linear.h"
#include "model/families/family.h"
#include "model/model_config.h"
#include "model/shard_plan.h"

namespace dmc::runtime {

struct Linear {
  kernels::PackedWeights weights;
  std::vector<float> bias;  // empty: none

  // y[rows][outputs] of x[rows][inputs]; they must not overlap.
  void apply(const float* x, int64_t rows, float* y) const {
    kernels::linear(weights, bias.empty() ? nullptr : bias.data(), x, rows, y);
  }
};

struct Norm {
  std::vector<float> weight, bias;  // bias empty: none
  model::NormKind kind = model::NormKind::kRms;
  double eps = 0.0;

  bool present() const { return !weight.empty(); }
};

// Says what to decide about a token (model::LayerLayout::decision_proj). In f32 whatever the
// other weights have: it is small, and a decision is a threshold.
struct Adapter {
  Norm norm;
  Linear projection;
};

struct LayerWeights {
  Norm attention_norm, mlp_norm, q_norm, k_norm;
  Linear qkv;  // q's rows, then k's, then v's
  Linear o;
  Linear up;  // gate's rows first where there is a gate
  Linear down;
  std::optional<Adapter> adapter;  // none where a channel of q and k decides, or nothing does
};

// Of a shard: the rows and columns that model::ShardPlan gives it. What all ranks' products are
// summed to has its bias on the first one alone.
struct DecoderWeights {
  // [vocab][hidden]; shared with the head where it is tied.
  std::shared_ptr<const kernels::PackedWeights> embedding;
  std::vector<float> positions;   // [max_positions][hidden]; empty: none
  std::vector<float> token_type;  // [hidden], row 0 of its table; empty: none
  Norm embedding_norm, final_norm, head_norm;
  std::vector<LayerWeights> layers;
  std::optional<Linear> head_transform;
  std::shared_ptr<const kernels::PackedWeights> head;
  std::vector<float> head_bias;

  int64_t bytes() const;  // of the packed matrices, a shared one once
};

struct Model {
  model::ModelConfig config;  // of the whole model
  int64_t parameters = 0;     // numbers in the checkpoint
  DecoderWeights weights;
  int rank = 0, ranks = 1;  // which shard of it the weights are

  model::ShardPlan shard() const { return model::plan_shard(config, rank, ranks); }
};

// From a Hugging Face directory or a GGUF file, with the adapter of a file of its own if there is
// one; matrices rounded to `type` (kF32, kBF16, kF16, kI8), vectors in f32. Without a type: as the
// checkpoint is stored, so that nothing is lost (the embedding of one whose matrices have 8 bits is
// rounded, too). Error(kData) for what is missing or has another shape than config.json implies,
// Error(kInvalidArgument) for an adapter the model cannot take.
std::shared_ptr<const Model> load_model(const std::filesystem::path& path,
                                        std::optional<DType> type = {},
                                        const std::filesystem::path& adapter_file = {});
// The same as a shard for each of `ranks`. Every number is that of the whole model, but for weights
// of 4 bits where a part of a row begins within a group. Error(kInvalidArgument) as plan_shard(),
// too.
std::vector<std::shared_ptr<const Model>> load_shards(
    const std::filesystem::path& path, int ranks, std::optional<DType> type = {},
    const std::filesystem::path& adapter_file = {});

}  // namespace dmc::runtime

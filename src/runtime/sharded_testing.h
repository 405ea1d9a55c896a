// For tests: a model in memory cut into shards, number by number.
#pragma once

#include "runtime/device/device_testing.h"
#include "runtime/weights.h"

namespace dmc::runtime {

// The numbers [rows][columns] of a matrix that a rank has. Rows are given as ranges, one below the
// other.
inline kernels::PackedWeights cut(const kernels::PackedWeights& from,
                                  const std::vector<model::Part>& rows, model::Part columns) {
  int64_t outputs = 0;
  for (const model::Part& part : rows) outputs += part.count;
  kernels::PackedWeights to(outputs, columns.count, from.type());
  std::vector<float> row(static_cast<size_t>(from.inputs()));
  int64_t output = 0;
  for (const model::Part& part : rows) {
    for (int64_t r = part.first; r < part.first + part.count; ++r) {
      from.get_row(r, row.data());
      to.set_rows(output++, 1, row.data() + columns.first);
    }
  }
  return to;
}

inline Linear cut_rows(const Linear& from, const std::vector<model::Part>& rows) {
  Linear to{cut(from.weights, rows, {0, from.weights.inputs()}), {}};
  for (const model::Part& part : rows) {
    if (from.bias.empty()) break;
    const auto first = from.bias.begin() + part.first;
    to.bias.insert(to.bias.end(), first, first + part.count);
  }
  return to;
}

inline Linear cut_columns(const Linear& from, model::Part columns, int rank) {
  return {cut(from.weights, {{0, from.weights.outputs()}}, columns),
          rank == 0 ? from.bias : std::vector<float>{}};
}

inline LayerWeights cut_layer(const LayerWeights& from, const model::ModelConfig& config,
                              const model::ShardPlan& shard) {
  const int64_t d = config.head_dim, H = config.num_heads, K = config.num_kv_heads;
  const bool gated = config.activation == model::Activation::kSiluGated;
  const auto heads = [d](int64_t before, const model::Part& part) {
    return model::Part{(before + part.first) * d, part.count * d};
  };
  std::vector<model::Part> up = {shard.mlp};
  if (gated) up.push_back({config.intermediate_size + shard.mlp.first, shard.mlp.count});
  LayerWeights to{from.attention_norm,
                  from.mlp_norm,
                  from.q_norm,
                  from.k_norm,
                  cut_rows(from.qkv, {heads(0, shard.heads), heads(H, shard.kv_heads),
                                      heads(H + K, shard.kv_heads)}),
                  cut_columns(from.o, heads(0, shard.heads), shard.rank),
                  cut_rows(from.up, up),
                  cut_columns(from.down, shard.mlp, shard.rank),
                  {}};
  if (!from.adapter) return to;
  std::vector<model::Part> said = {shard.kv_heads};
  if (config.dmc->pools()) said.push_back({K + shard.kv_heads.first, shard.kv_heads.count});
  to.adapter = {from.adapter->norm, cut_rows(from.adapter->projection, said)};
  return to;
}

inline std::shared_ptr<const Model> shard_of(const Model& whole, int rank, int ranks) {
  auto model = std::make_shared<Model>();
  model->config = whole.config;
  model->rank = rank;
  model->ranks = ranks;
  const model::ShardPlan shard = model->shard();
  const DecoderWeights& from = whole.weights;
  DecoderWeights& to = model->weights;
  const auto rows = [&](const kernels::PackedWeights& table) {
    return std::make_shared<kernels::PackedWeights>(cut(table, {shard.vocab}, {0, table.inputs()}));
  };
  to.embedding = rows(*from.embedding);
  to.positions = from.positions;
  to.token_type = from.token_type;
  to.embedding_norm = from.embedding_norm;
  to.final_norm = from.final_norm;
  to.head_norm = from.head_norm;
  for (const LayerWeights& layer : from.layers) {
    to.layers.push_back(cut_layer(layer, whole.config, shard));
  }
  if (from.head_transform) {
    to.head_transform =
        cut_rows(*from.head_transform, {{0, from.head_transform->weights.outputs()}});
  }
  to.head = from.head == from.embedding ? to.embedding : rows(*from.head);
  if (!from.head_bias.empty()) {
    const auto first = from.head_bias.begin() + shard.vocab.first;
    to.head_bias.assign(first, first + shard.vocab.count);
  }
  return model;
}

inline std::vector<std::shared_ptr<const Model>> shards_of(const Model& whole, int ranks) {
  std::vector<std::shared_ptr<const Model>> shards;
  for (int rank = 0; rank < ranks; ++rank) shards.push_back(shard_of(whole, rank, ranks));
  return shards;
}

}  // namespace dmc::runtime

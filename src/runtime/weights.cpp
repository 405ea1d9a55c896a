#include "runtime/weights.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/rounding.h"
#include "model/checkpoint.h"
#include "model/families/layout_builder.h"

namespace dmc::runtime {
namespace {

// Rows of a checkpoint's matrix, and which of their numbers a rank has.
struct Block {
  model::LinearSource source;
  model::Part inputs;

  Block(model::LinearSource rows) : source(std::move(rows)), inputs{0, source.columns} {}
  bool is_whole_rows() const { return inputs.count == source.columns; }
};

Block rows_of(const model::LinearSource& source, const model::Part& rows, int64_t height = 1) {
  return model::rows_of(source, rows.first * height, rows.count * height);
}

// The bias is added once to the sum of all ranks' products.
Block columns_of(model::LinearSource source, const model::Part& columns, int rank,
                 int64_t width = 1) {
  if (rank > 0) source.bias.clear();
  Block block(std::move(source));
  block.inputs = {columns.first * width, columns.count * width};
  return block;
}

// Reads parts of a checkpoint.
class Reader {
 public:
  Reader(const model::Checkpoint& checkpoint, const model::ModelConfig& config)
      : checkpoint_(checkpoint), config_(config) {}

  DType dtype(const std::string& name) const { return checkpoint_.matrix(name)->dtype(); }
  std::vector<float> vector(const std::string& name) const {
    if (name.empty()) return {};
    const auto source = checkpoint_.matrix(name);
    std::vector<float> values(static_cast<size_t>(source->rows() * source->columns()));
    source->read_all(values.data());
    return values;
  }
  std::vector<float> part_of_vector(const std::string& name, const model::Part& part) const {
    if (name.empty()) return {};
    std::vector<float> values(static_cast<size_t>(part.count));
    checkpoint_.matrix(name)->read_columns(part.first, part.count, values.data());
    return values;
  }
  std::vector<float> first_row(const std::string& name) const {
    const auto source = checkpoint_.matrix(name);
    std::vector<float> values(static_cast<size_t>(source->columns()));
    source->read_rows(0, 1, values.data());
    return values;
  }
  Norm norm(const model::NormSource& source) const {
    return {vector(source.weight), vector(source.bias), config_.norm, config_.norm_eps};
  }

  // Rows of several matrices with the same inputs, one below the other.
  Linear linear(std::span<const Block> blocks, DType type) const {
    int64_t outputs = 0;
    for (const Block& block : blocks) outputs += block.source.rows;
    Linear result{{outputs, blocks[0].inputs.count, type}, {}};
    int64_t first = 0;
    for (const Block& block : blocks) {
      const model::LinearSource& rows = block.source;
      pack_rows(block, first, result.weights);
      first += rows.rows;
      if (rows.bias.empty()) continue;
      result.bias.resize(static_cast<size_t>(outputs));
      checkpoint_.matrix(rows.bias)->read_columns(rows.first, rows.rows,
                                                  result.bias.data() + (first - rows.rows));
    }
    return result;
  }
  Linear linear(const Block& block, DType type) const { return linear(std::span(&block, 1), type); }

 private:
  // Some outputs at a time, on all threads.
  void pack_rows(const Block& block, int64_t first_output, kernels::PackedWeights& to) const {
    const auto source = checkpoint_.matrix(block.source.weight);
    parallel_for(0, block.source.rows, kernels::PackedWeights::kBlock,
                 [&](int64_t begin, int64_t end) {
                   const model::Part rows{begin, end - begin};
                   if (is_stored_as_packed(*source, block, to.type())) {
                     copy_lines(*source, block, rows, first_output, to);
                   } else {
                     round_rows(*source, block, rows, first_output, to);
                   }
                 });
  }

  // Whole rows are rounded, so that a scale is the same whatever part of a row is kept.
  static void round_rows(const model::MatrixSource& source, const Block& block, model::Part rows,
                         int64_t first_output, kernels::PackedWeights& to) {
    const int64_t width = block.source.columns, first = block.source.first + rows.first;
    std::vector<float> numbers(static_cast<size_t>(rows.count * width));
    block.source.transposed ? source.read_columns(first, rows.count, numbers.data())
                            : source.read_rows(first, rows.count, numbers.data());
    first_output += rows.first;
    if (block.is_whole_rows()) return to.set_rows(first_output, rows.count, numbers.data());
    for (int64_t r = 0; r < rows.count; ++r) {
      round_part(numbers.data() + r * width, block, first_output + r, to);
    }
  }
  static void round_part(const float* row, const Block& block, int64_t output,
                         kernels::PackedWeights& to) {
    if (kernels::in_groups(to.type())) return to.set_rows(output, 1, row + block.inputs.first);
    const size_t size = dtype_size(to.type());
    std::vector<std::byte> rounded(static_cast<size_t>(block.source.columns) * size);
    float scale = 1.0f;
    kernels::round_row(row, block.source.columns, to.type(), rounded.data(), &scale);
    to.set_rounded_row(output, rounded.data() + static_cast<size_t>(block.inputs.first) * size,
                       scale);
  }

  // Then nothing is rounded: what rounded numbers stand for could give other scales.
  static bool is_stored_as_packed(const model::MatrixSource& source, const Block& block,
                                  DType type) {
    if (block.source.transposed != source.turned()) return false;
    const model::WeightFormat format = source.format();
    if (type == DType::kI4) {
      return format.bits == 4 && format.group == kernels::kGroup &&
             block.inputs.first % kernels::kGroup == 0;
    }
    return source.dtype() == type &&
           (source.floats(0) != nullptr || format.group == block.source.columns);
  }
  static void copy_lines(const model::MatrixSource& source, const Block& block, model::Part rows,
                         int64_t first_output, kernels::PackedWeights& to) {
    const auto skipped = static_cast<size_t>(block.inputs.first) * dtype_size(to.type());
    for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
      const int64_t line = block.source.first + r;
      const std::byte* const floats = source.floats(line);
      floats != nullptr ? to.set_rounded_row(first_output + r, floats + skipped, 1.0f)
                        : copy_numbers(source, block, line, first_output + r, to);
    }
  }
  static void copy_numbers(const model::MatrixSource& source, const Block& block, int64_t line,
                           int64_t output, kernels::PackedWeights& to) {
    const model::WeightFormat format = source.format();
    const auto width = static_cast<size_t>(block.source.columns);
    std::vector<int8_t> numbers(width);
    std::vector<float> scales(width / static_cast<size_t>(format.group)), minima(scales.size());
    source.read_numbers(line, numbers.data(), scales.data(), minima.data());
    const int8_t* const kept = numbers.data() + block.inputs.first;
    if (to.type() != DType::kI4) {
      to.set_rounded_row(output, reinterpret_cast<const std::byte*>(kept), scales[0]);
      return;
    }
    const int64_t group = block.inputs.first / format.group;
    to.set_groups(output, {kept, format.group, scales.data() + group,
                           format.has_minimum ? minima.data() + group : nullptr});
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
};

// What its projection says of the shard's KV heads: the decisions, then, if there are any, the
// importances.
std::optional<Adapter> read_adapter(const Reader& reader, const model::LayerLayout& layout,
                                    const model::ModelConfig& config,
                                    const model::ShardPlan& shard) {
  if (!layout.decision_proj.present()) return std::nullopt;
  std::vector<Block> rows;
  for (int64_t first = 0; first < layout.decision_proj.rows; first += config.num_kv_heads) {
    rows.push_back(
        rows_of(layout.decision_proj, {first + shard.kv_heads.first, shard.kv_heads.count}));
  }
  Adapter adapter{reader.norm(layout.decision_norm), reader.linear(rows, DType::kF32)};
  adapter.norm.kind = model::NormKind::kRms;  // in every family
  return adapter;
}

LayerWeights read_layer(const Reader& reader, const model::LayerLayout& layout,
                        const model::ModelConfig& config, const model::ShardPlan& shard,
                        DType type) {
  const int64_t d = config.head_dim;
  const std::array qkv = {rows_of(layout.q, shard.heads, d), rows_of(layout.k, shard.kv_heads, d),
                          rows_of(layout.v, shard.kv_heads, d)};
  std::vector<Block> up = {rows_of(layout.up, shard.mlp)};
  if (layout.gate.present()) up.insert(up.begin(), rows_of(layout.gate, shard.mlp));
  return {reader.norm(layout.attention_norm),
          reader.norm(layout.mlp_norm),
          reader.norm(layout.q_norm),
          reader.norm(layout.k_norm),
          reader.linear(qkv, type),
          reader.linear(columns_of(layout.o, shard.heads, shard.rank, d), type),
          reader.linear(up, type),
          reader.linear(columns_of(layout.down, shard.mlp, shard.rank), type),
          read_adapter(reader, layout, config, shard)};
}

}  // namespace

int64_t DecoderWeights::bytes() const {
  int64_t sum = embedding->bytes() + (head == embedding ? 0 : head->bytes());
  if (head_transform) sum += head_transform->weights.bytes();
  for (const LayerWeights& layer : layers) {
    for (const Linear* part : {&layer.qkv, &layer.o, &layer.up, &layer.down}) {
      sum += part->weights.bytes();
    }
    if (layer.adapter) sum += layer.adapter->projection.weights.bytes();
  }
  return sum;
}

namespace {

std::shared_ptr<const Model> read_shard(const model::ModelFiles& files, int rank, int ranks,
                                        std::optional<DType> wanted) {
  auto model = std::make_shared<Model>(Model{files.config, 0, {}, rank, ranks});
  const model::ModelConfig& config = model->config;
  const model::ShardPlan shard = model->shard();
  const model::Checkpoint& checkpoint = files.checkpoint;
  const model::DecoderLayout& layout = checkpoint.layout();
  const Reader reader(checkpoint, config);
  for (const auto& [name, shape] : layout.shapes) {
    model->parameters += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  }
  const DType stored = config.int8_weights ? DType::kI8 : reader.dtype(layout.token_embedding);
  const DType type = wanted.value_or(stored);
  const auto table = [&](const model::LinearSource& source) {
    return std::make_shared<kernels::PackedWeights>(
        std::move(reader.linear(rows_of(source, shard.vocab), type).weights));
  };

  DecoderWeights& w = model->weights;
  model::LinearSource embedding;
  embedding.weight = layout.token_embedding;
  embedding.rows = config.vocab_size;
  embedding.columns = config.hidden_size;
  w.embedding = table(embedding);
  w.positions = reader.vector(layout.position_embedding);
  if (!layout.token_type_embedding.empty()) {
    w.token_type = reader.first_row(layout.token_type_embedding);
  }
  w.embedding_norm = reader.norm(layout.embedding_norm);
  for (const model::LayerLayout& layer : layout.layers) {
    w.layers.push_back(read_layer(reader, layer, config, shard, type));
  }
  w.final_norm = reader.norm(layout.final_norm);
  if (layout.head_transform.present()) {
    w.head_transform = reader.linear(layout.head_transform, type);
  }
  w.head_norm = reader.norm(layout.head_norm);
  w.head = layout.head.weight == layout.token_embedding ? w.embedding : table(layout.head);
  w.head_bias = reader.part_of_vector(layout.head.bias, shard.vocab);
  return model;
}

}  // namespace

std::shared_ptr<const Model> load_model(const std::filesystem::path& path,
                                        std::optional<DType> type,
                                        const std::filesystem::path& adapter_file) {
  return load_shards(path, 1, type, adapter_file).front();
}

std::vector<std::shared_ptr<const Model>> load_shards(const std::filesystem::path& path, int ranks,
                                                      std::optional<DType> type,
                                                      const std::filesystem::path& adapter_file) {
  const model::ModelFiles files = model::open_model(path, adapter_file);
  std::vector<std::shared_ptr<const Model>> shards;
  for (int rank = 0; rank < ranks; ++rank) shards.push_back(read_shard(files, rank, ranks, type));
  files.checkpoint.require_whole();
  return shards;
}

}  // namespace dmc::runtime

#include "runtime/weights.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/parallel.h"
#include "model/checkpoint.h"

namespace dmc::runtime {
namespace {

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
  Linear linear(std::span<const model::LinearSource> parts, DType type) const {
    int64_t outputs = 0;
    for (const auto& part : parts) outputs += part.rows;
    Linear result{{outputs, parts[0].columns, type}, {}};
    int64_t first = 0;
    for (const auto& part : parts) {
      pack_rows(part, first, result.weights);
      first += part.rows;
      if (part.bias.empty()) continue;
      result.bias.resize(static_cast<size_t>(outputs));
      checkpoint_.matrix(part.bias)->read_columns(part.first, part.rows,
                                                  result.bias.data() + (first - part.rows));
    }
    return result;
  }
  Linear linear(const model::LinearSource& source, DType type) const {
    return linear(std::span(&source, 1), type);
  }

 private:
  // A block of outputs at a time, on all threads.
  void pack_rows(const model::LinearSource& part, int64_t first_output,
                 kernels::PackedWeights& to) const {
    const auto source = checkpoint_.matrix(part.weight);
    parallel_for(0, part.rows, kernels::PackedWeights::kBlock, [&](int64_t begin, int64_t end) {
      if (is_stored_as_packed(*source, part, to.type())) {
        copy_lines(*source, part.first + begin, end - begin, first_output + begin, to);
      } else {
        round_rows(*source, part, {begin, end}, first_output, to);
      }
    });
  }

  struct Range {
    int64_t begin, end;
  };
  static void round_rows(const model::MatrixSource& source, const model::LinearSource& part,
                         Range range, int64_t first_output, kernels::PackedWeights& to) {
    const int64_t count = range.end - range.begin;
    std::vector<float> rows(static_cast<size_t>(count * part.columns));
    part.transposed ? source.read_columns(part.first + range.begin, count, rows.data())
                    : source.read_rows(part.first + range.begin, count, rows.data());
    to.set_rows(first_output + range.begin, count, rows.data());
  }

  // Then nothing is rounded: what rounded numbers stand for could give other scales.
  static bool is_stored_as_packed(const model::MatrixSource& source,
                                  const model::LinearSource& part, DType type) {
    if (part.transposed != source.turned()) return false;
    const model::WeightFormat format = source.format();
    if (type == DType::kI4) return format.bits == 4 && format.group == kernels::kGroup;
    return source.dtype() == type && (source.floats(0) != nullptr || format.group == part.columns);
  }
  static void copy_lines(const model::MatrixSource& source, int64_t first, int64_t count,
                         int64_t first_output, kernels::PackedWeights& to) {
    for (int64_t r = 0; r < count; ++r) {
      const std::byte* const floats = source.floats(first + r);
      floats != nullptr ? to.set_rounded_row(first_output + r, floats, 1.0f)
                        : copy_numbers(source, first + r, first_output + r, to);
    }
  }
  static void copy_numbers(const model::MatrixSource& source, int64_t line, int64_t output,
                           kernels::PackedWeights& to) {
    const model::WeightFormat format = source.format();
    const auto inputs = static_cast<size_t>(to.inputs());
    std::vector<int8_t> numbers(inputs);
    std::vector<float> scales(inputs / static_cast<size_t>(format.group)), minima(scales.size());
    source.read_numbers(line, numbers.data(), scales.data(), minima.data());
    if (to.type() != DType::kI4) {
      to.set_rounded_row(output, reinterpret_cast<const std::byte*>(numbers.data()), scales[0]);
      return;
    }
    to.set_groups(output, {numbers.data(), format.group, scales.data(),
                           format.has_minimum ? minima.data() : nullptr});
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
};

std::optional<Adapter> read_adapter(const Reader& reader, const model::LayerLayout& layout) {
  if (!layout.decision_proj.present()) return std::nullopt;
  Adapter adapter{reader.norm(layout.decision_norm),
                  reader.linear(layout.decision_proj, DType::kF32)};
  adapter.norm.kind = model::NormKind::kRms;  // in every family
  return adapter;
}

LayerWeights read_layer(const Reader& reader, const model::LayerLayout& layout, DType type) {
  const std::array qkv = {layout.q, layout.k, layout.v};
  std::vector<model::LinearSource> up = {layout.up};
  if (layout.gate.present()) up.insert(up.begin(), layout.gate);
  return {reader.norm(layout.attention_norm),
          reader.norm(layout.mlp_norm),
          reader.norm(layout.q_norm),
          reader.norm(layout.k_norm),
          reader.linear(qkv, type),
          reader.linear(layout.o, type),
          reader.linear(up, type),
          reader.linear(layout.down, type),
          read_adapter(reader, layout)};
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

std::shared_ptr<const Model> load_model(const std::filesystem::path& path,
                                        std::optional<DType> wanted,
                                        const std::filesystem::path& adapter_file) {
  auto model = std::make_shared<Model>();
  model::ModelFiles files = model::open_model(path, adapter_file);
  const model::Checkpoint& checkpoint = files.checkpoint;
  model->config = std::move(files.config);
  const model::DecoderLayout& layout = checkpoint.layout();
  const Reader reader(checkpoint, model->config);
  for (const auto& [name, shape] : layout.shapes) {
    model->parameters += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  }
  const DType stored =
      model->config.int8_weights ? DType::kI8 : reader.dtype(layout.token_embedding);
  const DType type = wanted.value_or(stored);

  DecoderWeights& w = model->weights;
  model::LinearSource embedding;
  embedding.weight = layout.token_embedding;
  embedding.rows = model->config.vocab_size;
  embedding.columns = model->config.hidden_size;
  w.embedding =
      std::make_shared<kernels::PackedWeights>(std::move(reader.linear(embedding, type).weights));
  w.positions = reader.vector(layout.position_embedding);
  if (!layout.token_type_embedding.empty()) {
    w.token_type = reader.first_row(layout.token_type_embedding);
  }
  w.embedding_norm = reader.norm(layout.embedding_norm);
  for (const model::LayerLayout& layer : layout.layers) {
    w.layers.push_back(read_layer(reader, layer, type));
  }
  w.final_norm = reader.norm(layout.final_norm);
  if (layout.head_transform.present()) {
    w.head_transform = reader.linear(layout.head_transform, type);
  }
  w.head_norm = reader.norm(layout.head_norm);
  w.head = layout.head.weight == layout.token_embedding
               ? w.embedding
               : std::make_shared<kernels::PackedWeights>(
                     std::move(reader.linear(layout.head, type).weights));
  w.head_bias = reader.vector(layout.head.bias);
  checkpoint.require_whole();
  return model;
}

}  // namespace dmc::runtime

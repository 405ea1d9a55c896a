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

namespace dmc::runtime {
namespace {

// Reads parts of a checkpoint as f32.
class Reader {
 public:
  Reader(const model::Checkpoint& checkpoint, const model::ModelConfig& config)
      : checkpoint_(checkpoint), config_(config) {}

  const model::TensorView& tensor(const std::string& name) const {
    return checkpoint_.tensor(name);
  }
  std::vector<float> values(const std::string& name, int64_t first, int64_t count) const {
    return numbers(tensor(name), first, count);
  }
  std::vector<float> vector(const std::string& name) const {
    return name.empty() ? std::vector<float>() : values(name, 0, tensor(name).numel());
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
      copy_rows(part, first, result.weights);
      first += part.rows;
      if (part.bias.empty()) continue;
      result.bias.resize(static_cast<size_t>(outputs));
      std::ranges::copy(values(part.bias, part.first, part.rows),
                        result.bias.begin() + (first - part.rows));
    }
    return result;
  }
  Linear linear(const model::LinearSource& source, DType type) const {
    return linear(std::span(&source, 1), type);
  }

 private:
  static const std::byte* address(const model::TensorView& view, int64_t index) {
    return view.bytes.data() + index * static_cast<int64_t>(dtype_size(view.dtype));
  }
  static void widen(const model::TensorView& view, int64_t first, int64_t count, float* to) {
    kernels::widen_row(address(view, first), count, view.dtype, nullptr, to);
  }
  static std::vector<float> numbers(const model::TensorView& view, int64_t first, int64_t count) {
    std::vector<float> result(static_cast<size_t>(count));
    widen(view, first, count, result.data());
    return result;
  }

  void copy_rows(const model::LinearSource& part, int64_t first_output,
                 kernels::PackedWeights& to) const {
    const model::TensorView& view = tensor(part.weight);
    if (part.transposed) return copy_columns(view, part, first_output, to);
    if (view.dtype == DType::kI8) return copy_rounded_rows(view, part, first_output, to);
    parallel_for(0, part.rows, kernels::PackedWeights::kBlock, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(part.columns));
      for (int64_t r = begin; r < end; ++r) {
        widen(view, (part.first + r) * part.columns, part.columns, row.data());
        to.set_rows(first_output + r, 1, row.data());
      }
    });
  }

  // Rows of 8 bits are taken as they are where that is wanted: rounding what they stand for could
  // give another scale.
  void copy_rounded_rows(const model::TensorView& view, const model::LinearSource& part,
                         int64_t first_output, kernels::PackedWeights& to) const {
    const std::vector<float> scales =
        numbers(checkpoint_.row_scales(part.weight), part.first, part.rows);
    parallel_for(0, part.rows, kernels::PackedWeights::kBlock, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(part.columns));
      for (int64_t r = begin; r < end; ++r) {
        const std::byte* const stored = address(view, (part.first + r) * part.columns);
        const float scale = scales[static_cast<size_t>(r)];
        if (to.type() == DType::kI8) {
          to.set_rounded_row(first_output + r, stored, scale);
          continue;
        }
        kernels::widen_row(stored, part.columns, DType::kI8, &scale, row.data());
        to.set_rows(first_output + r, 1, row.data());
      }
    });
  }

  // A tensor stored as [in, out] has all outputs, of this part or not, side by side: a block of
  // them is widened and turned at a time.
  void copy_columns(const model::TensorView& view, const model::LinearSource& part,
                    int64_t first_output, kernels::PackedWeights& to) const {
    const int64_t width = view.shape[1], columns = part.columns;
    parallel_for(0, part.rows, kernels::PackedWeights::kBlock, [&](int64_t begin, int64_t end) {
      const int64_t count = end - begin;
      std::vector<float> strip(static_cast<size_t>(count)), rows(strip.size() * columns);
      for (int64_t i = 0; i < columns; ++i) {
        widen(view, i * width + part.first + begin, count, strip.data());
        for (int64_t r = 0; r < count; ++r) rows[r * columns + i] = strip[r];
      }
      to.set_rows(first_output + begin, count, rows.data());
    });
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

std::shared_ptr<const Model> load_model(const std::filesystem::path& dir,
                                        std::optional<DType> wanted,
                                        const std::filesystem::path& adapter_file) {
  auto model = std::make_shared<Model>();
  model::ModelFiles files = model::open_model(dir, adapter_file);
  const model::Checkpoint& checkpoint = files.checkpoint;
  model->config = std::move(files.config);
  const model::DecoderLayout& layout = checkpoint.layout();
  const Reader reader(checkpoint, model->config);
  for (const auto& [name, shape] : layout.shapes) {
    model->parameters += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  }
  const DType stored =
      model->config.int8_weights ? DType::kI8 : reader.tensor(layout.token_embedding).dtype;
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
    w.token_type = reader.values(layout.token_type_embedding, 0, model->config.hidden_size);
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
  return model;
}

}  // namespace dmc::runtime

#include "model/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "base/gguf.h"
#include "base/parallel.h"
#include "model/config_file.h"
#include "model/gguf/gguf_weights.h"
#include "model/quantization.h"
#include "model/safetensors_weights.h"

namespace dmc::model {
namespace {

constexpr int64_t kRowsAtOnce = 64;

std::unique_ptr<const WeightStore> open_weights(const std::filesystem::path& model,
                                                const DecoderLayout& layout) {
  if (is_gguf(model)) return std::make_unique<GgufWeights>(model, layout);
  return std::make_unique<SafetensorsWeights>(model);
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& model, DecoderLayout layout,
                       std::optional<AdapterFile> adapter)
    : origin_(model.string()),
      layout_(std::move(layout)),
      weights_(open_weights(model, layout_)),
      int8_matrices_(int8_matrices(layout_)),
      adapter_tensors_(adapter_tensors(layout_)),
      adapter_(std::move(adapter)) {
  for (const auto& [name, shape] : layout_.shapes) matrix(name);
}

std::unique_ptr<const MatrixSource> Checkpoint::matrix(const std::string& name) const {
  const std::vector<int64_t>& shape = layout_.shapes.at(name);
  auto matrix = adapter_ && adapter_tensors_.contains(name)
                    ? open_matrix(adapter_->tensors(), adapter_->origin(), name, shape)
                    : weights_->open(stored_name(name), shape);
  if (matrix->dtype() != DType::kI8 || int8_matrices_.contains(name)) return matrix;
  throw data_error(origin_ + ": tensor " + name + " has dtype I8, expected F32, F16 or BF16");
}

std::string Checkpoint::stored_name(const std::string& name) const {
  for (const auto& [part, older] : layout_.older_names) {
    const size_t at = name.find(part);
    if (at == std::string::npos || weights_->has(name)) continue;
    std::string old_name = name;
    old_name.replace(at, part.size(), older);
    if (weights_->has(old_name)) return old_name;
  }
  return name;
}

CheckpointFacts Checkpoint::facts() const {
  CheckpointFacts facts;
  for (const auto& [name, shape] : layout_.shapes) {
    const auto found = matrix(name);
    ++facts.tensors;
    facts.bytes += found->bytes();
    facts.types.insert(found->type_name());
  }
  return facts;
}

void Checkpoint::require_finite() const {
  for (const auto& [name, shape] : layout_.shapes) {
    const auto tensor = matrix(name);
    std::atomic<bool> finite = true;
    parallel_for(0, tensor->rows(), kRowsAtOnce, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(static_cast<size_t>((end - begin) * tensor->columns()));
      tensor->read_rows(begin, end - begin, rows.data());
      if (!std::ranges::all_of(rows, [](float x) { return std::isfinite(x); })) finite = false;
    });
    if (finite) continue;
    throw data_error(origin_ + ": tensor " + name +
                     " has numbers that are not finite; the file is damaged, fetch it again");
  }
}

void Checkpoint::require_whole() const {
  weights_->require_whole();
  if (adapter_) adapter_->require_whole();
}

ModelFiles open_model(const std::filesystem::path& model,
                      const std::filesystem::path& adapter_file) {
  model::ModelConfig config = read_model_config(model);
  std::optional<AdapterFile> adapter;
  if (!adapter_file.empty()) {
    adapter.emplace(adapter_file);
    config = adapter->applied_to(std::move(config));
  }
  Checkpoint checkpoint(model, decoder_layout(config), std::move(adapter));
  return {std::move(config), std::move(checkpoint)};
}

}  // namespace dmc::model

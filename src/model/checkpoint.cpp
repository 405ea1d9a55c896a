#include "model/checkpoint.h"

#include <array>

#include "base/error.h"
#include "model/config_file.h"
#include "model/model_files.h"
#include "model/quantization.h"

namespace dmc::model {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

Error wrong_dtype(const std::string& tensor, DType found, const char* expected) {
  return data_error(tensor + " has dtype " + std::string(dtype_name(found)) + ", expected " +
                    expected);
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& dir, DecoderLayout layout,
                       std::optional<AdapterFile> adapter)
    : origin_(dir.string()),
      weights_(dir),
      layout_(std::move(layout)),
      int8_matrices_(int8_matrices(layout_)),
      adapter_tensors_(adapter_tensors(layout_)),
      adapter_(std::move(adapter)) {}

const model::TensorView& Checkpoint::tensor(const std::string& name) const {
  const model::TensorView& view = find(name);
  const bool may_be_int8 = int8_matrices_.contains(name);
  if (is_float(view.dtype) || (may_be_int8 && view.dtype == DType::kI8)) return view;
  throw wrong_dtype(origin_ + ": tensor " + name, view.dtype,
                    may_be_int8 ? "F32, F16, BF16 or I8" : "F32, F16 or BF16");
}

const model::TensorView& Checkpoint::row_scales(const std::string& name) const {
  const std::string scales = model::scale_name(name);
  const std::array<int64_t, 2> shape = {layout_.shapes.at(name)[0], 1};
  const model::TensorView& view = weights_.require(scales, shape);
  if (is_float(view.dtype)) return view;
  throw wrong_dtype(origin_ + ": tensor " + scales, view.dtype, "F32, F16 or BF16");
}

const model::TensorView& Checkpoint::find(const std::string& name) const {
  const std::vector<int64_t>& shape = layout_.shapes.at(name);
  if (adapter_ && adapter_tensors_.contains(name)) {
    return model::require_tensor(adapter_->tensors(), adapter_->origin(), name, shape);
  }
  for (const auto& [part, older] : layout_.older_names) {
    const size_t at = name.find(part);
    if (at == std::string::npos || weights_.tensors().contains(name)) continue;
    std::string old_name = name;
    old_name.replace(at, part.size(), older);
    if (weights_.tensors().contains(old_name)) return weights_.require(old_name, shape);
  }
  return weights_.require(name, shape);
}

CheckpointFacts Checkpoint::check() const {
  CheckpointFacts facts;
  for (const auto& [name, shape] : layout_.shapes) {
    const model::TensorView& view = tensor(name);
    ++facts.tensors;
    facts.bytes += static_cast<int64_t>(view.bytes.size());
    facts.dtypes.insert(view.dtype);
    if (view.dtype == DType::kI8)
      facts.bytes += static_cast<int64_t>(row_scales(name).bytes.size());
  }
  return facts;
}

ModelFiles open_model(const std::filesystem::path& dir, const std::filesystem::path& adapter_file) {
  model::ModelConfig config = read_model_config(dir);
  std::optional<AdapterFile> adapter;
  if (!adapter_file.empty()) {
    adapter.emplace(adapter_file);
    config = adapter->applied_to(std::move(config));
  }
  Checkpoint checkpoint(dir, decoder_layout(config), std::move(adapter));
  return {std::move(config), std::move(checkpoint)};
}

}  // namespace dmc::model

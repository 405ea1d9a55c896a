#include "nn/weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/rounding.h"

namespace dmc::nn {
namespace {

constexpr std::pair<DType, at::ScalarType> kDTypes[] = {
    {DType::kF32, at::kFloat}, {DType::kF16, at::kHalf}, {DType::kBF16, at::kBFloat16},
    {DType::kI64, at::kLong},  {DType::kI32, at::kInt},  {DType::kI8, at::kChar},
    {DType::kU8, at::kByte},
};

struct FloatType {
  const char* name;         // on a command line
  const char* config_name;  // in config.json
  at::ScalarType type;
};

constexpr FloatType kFloatTypes[] = {
    {"f32", "float32", at::kFloat},
    {"f16", "float16", at::kHalf},
    {"bf16", "bfloat16", at::kBFloat16},
};

DType dtype_of(at::ScalarType type) {
  for (const auto& [ours, theirs] : kDTypes) {
    if (theirs == type) return ours;
  }
  throw internal_error(std::string("cannot store a tensor of type ") + at::toString(type));
}

int64_t stored_bytes(const std::string& name, const at::Tensor& tensor, const WeightForm& form) {
  if (!form.int8.contains(name)) {
    return tensor.numel() * static_cast<int64_t>(at::elementSize(form.dtype));
  }
  return tensor.numel() + tensor.size(0) * static_cast<int64_t>(sizeof(float));
}

// Adds what a parameter is stored as: itself, or its rounded rows and their scales.
void add_stored(const std::string& name, const at::Tensor& tensor, const WeightForm& form,
                TensorsByName* to) {
  if (!form.int8.contains(name)) {
    (*to)[name] = tensor.to(at::kCPU, form.dtype).contiguous();
    return;
  }
  const at::Tensor from = tensor.to(at::kCPU, at::kFloat).contiguous();
  const int64_t rows = from.size(0), columns = from.size(1);
  const at::Tensor rounded = at::empty({rows, columns}, at::kChar);
  const at::Tensor scales = at::empty({rows, 1}, at::kFloat);
  for (int64_t r = 0; r < rows; ++r) {
    auto* const row = reinterpret_cast<std::byte*>(rounded.data_ptr<int8_t>() + r * columns);
    kernels::round_row(from.data_ptr<float>() + r * columns, columns, DType::kI8, row,
                       scales.data_ptr<float>() + r);
    if (std::isfinite(scales.data_ptr<float>()[r])) continue;
    throw data_error("tensor " + name + " has numbers in row " + std::to_string(r) +
                     " that are not finite and have no form in 8 bits; the model is damaged");
  }
  (*to)[name] = rounded;
  (*to)[model::scale_name(name)] = scales;
}

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  for (const auto& [ours, theirs] : kDTypes) {
    if (ours == dtype) return theirs;
  }
  throw internal_error("no LibTorch type for dtype " + std::string(dtype_name(dtype)));
}

at::ScalarType float_type(const std::string& name) {
  for (const FloatType& known : kFloatTypes) {
    if (name == known.name) return known.type;
  }
  throw invalid_argument("weights of dtype \"" + name +
                         "\" cannot be written; f32, f16 and bf16 can");
}

const char* float_type_name(at::ScalarType type) {
  for (const FloatType& known : kFloatTypes) {
    if (type == known.type) return known.config_name;
  }
  throw internal_error(std::string("config.json has no name for dtype ") + at::toString(type));
}

at::Tensor to_tensor(const model::TensorView& view, at::ScalarType dtype) {
  // from_blob wants a mutable pointer; the copy below is all that reads it.
  void* data = const_cast<std::byte*>(view.bytes.data());
  const at::Tensor mapped = at::from_blob(data, view.shape, scalar_type(view.dtype));
  return mapped.to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

model::TensorMap to_views(const TensorsByName& tensors) {
  model::TensorMap views;
  for (const auto& [name, tensor] : tensors) {
    DMC_CHECK(tensor.is_contiguous() && tensor.is_cpu());
    const auto* data = static_cast<const std::byte*>(tensor.const_data_ptr());
    views[name] = {dtype_of(tensor.scalar_type()), tensor.sizes().vec(), {data, tensor.nbytes()}};
  }
  return views;
}

void save_model(const std::filesystem::path& dir, const std::string& config_json,
                const TensorsByName& parameters, const WeightForm& form) {
  std::error_code ignored;  // an unwritable place is reported by the write below, with its path
  std::filesystem::create_directories(dir, ignored);
  std::map<std::string, int64_t> bytes;
  int64_t total = 0;
  for (const auto& [name, tensor] : parameters) {
    bytes[name] = stored_bytes(name, tensor, form);
    total += bytes[name];
  }
  std::vector<model::Shard> shards = model::plan_shards(bytes, form.shard_bytes);
  for (model::Shard& shard : shards) {  // a shard at a time: converting takes as much memory
    TensorsByName converted;
    for (const std::string& name : shard.tensors) {
      add_stored(name, parameters.at(name).detach(), form, &converted);
    }
    model::write_safetensors(dir / shard.file, to_views(converted));
    shard.tensors.clear();
    for (const auto& [name, tensor] : converted) shard.tensors.push_back(name);
  }
  model::finish_shards(dir, shards, total);
  write_file_atomically(dir / "config.json", config_json);
}

at::Generator generator(uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

}  // namespace dmc::nn

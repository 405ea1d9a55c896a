#include "nn/weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/from_blob.h>

#include <utility>
#include <vector>

#include "base/error.h"

namespace dmc::nn {
namespace {

constexpr std::pair<DType, at::ScalarType> kDTypes[] = {
    {DType::kF32, at::kFloat}, {DType::kF16, at::kHalf}, {DType::kBF16, at::kBFloat16},
    {DType::kI64, at::kLong},  {DType::kI32, at::kInt},  {DType::kI8, at::kChar},
    {DType::kU8, at::kByte},
};

at::ScalarType scalar_type(DType dtype) {
  for (const auto& [ours, theirs] : kDTypes) {
    if (ours == dtype) return theirs;
  }
  throw internal_error("no LibTorch type for dtype " + std::string(dtype_name(dtype)));
}

DType dtype_of(at::ScalarType type) {
  for (const auto& [ours, theirs] : kDTypes) {
    if (theirs == type) return ours;
  }
  throw internal_error(std::string("cannot store a tensor of type ") + at::toString(type));
}

}  // namespace

at::Tensor to_tensor(const io::TensorView& view, at::ScalarType dtype) {
  // from_blob wants a mutable pointer; the copy below is all that reads it.
  void* data = const_cast<std::byte*>(view.bytes.data());
  const at::Tensor mapped = at::from_blob(data, view.shape, scalar_type(view.dtype));
  return mapped.to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

io::TensorMap to_views(const TensorsByName& tensors) {
  io::TensorMap views;
  for (const auto& [name, tensor] : tensors) {
    DMC_CHECK(tensor.is_contiguous() && tensor.is_cpu());
    const auto* data = static_cast<const std::byte*>(tensor.const_data_ptr());
    views[name] = {dtype_of(tensor.scalar_type()), tensor.sizes().vec(), {data, tensor.nbytes()}};
  }
  return views;
}

void save_model(const std::filesystem::path& dir, const std::string& config_json,
                const TensorsByName& parameters, at::ScalarType dtype) {
  TensorsByName converted;
  for (const auto& [name, tensor] : parameters) {
    converted[name] = tensor.detach().to(dtype).contiguous();
  }
  std::error_code ignored;  // an unwritable place is reported by the write below, with its path
  std::filesystem::create_directories(dir, ignored);
  io::write_safetensors(dir / "model.safetensors", to_views(converted));
  io::write_file_atomically(dir / "config.json", config_json);
}

at::Generator generator(uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

}  // namespace dmc::nn

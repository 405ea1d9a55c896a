// Tensors from and to model files.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "model/model_files.h"
#include "model/safetensors.h"

namespace dmc::nn {

using TensorsByName = std::map<std::string, at::Tensor>;

// A tensor of its own memory with the view's values converted to `dtype` (a floating type).
at::Tensor to_tensor(const model::TensorView& view, at::ScalarType dtype);

// Views of tensors for writing; a tensor must be contiguous, on the CPU, and outlive its view.
model::TensorMap to_views(const TensorsByName& tensors);

// LibTorch's type for a dtype of files.
at::ScalarType scalar_type(DType dtype);

// What a command line calls f32, f16 or bf16; Error(kInvalidArgument) for another name.
at::ScalarType float_type(const std::string& name);
// What config.json calls it: "float32", "float16" or "bfloat16".
const char* float_type_name(at::ScalarType type);

// How weights are stored.
struct WeightForm {
  at::ScalarType dtype = at::kFloat;
  std::set<std::string> int8 = {};  // of these: 8 bits and a scale a row (families/quantization.h)
  int64_t shard_bytes = model::kShardBytes;  // most a file has
};

// config.json and the weights in this form into `dir`, made if missing.
void save_model(const std::filesystem::path& dir, const std::string& config_json,
                const TensorsByName& parameters, const WeightForm& form);

// A CPU generator of its own, so that what it draws depends on nothing but `seed`.
at::Generator generator(uint64_t seed);

}  // namespace dmc::nn

// The tensors of a model directory under the names its family's layout gives them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "model/adapter.h"
#include "model/families/family.h"
#include "model/safetensors.h"

namespace dmc::model {

// What the files of a checkpoint hold of its layout.
struct CheckpointFacts {
  int64_t tensors = 0;
  int64_t bytes = 0;
  std::set<DType> dtypes;
};

class Checkpoint {
 public:
  // Maps the files of `dir`; Error(kData) if they are damaged. If there is an `adapter`, the
  // layout's adapter tensors are that file's, whatever `dir` has of them.
  Checkpoint(const std::filesystem::path& dir, DecoderLayout layout,
             std::optional<AdapterFile> adapter = {});

  const DecoderLayout& layout() const { return layout_; }
  // The tensor of this name of the layout, in the file's own dtype: kF32, kF16, kBF16 or, for one
  // of int8_matrices(), kI8. Error(kData) if it is missing or has another dtype or shape. The
  // layout's older names count too.
  const model::TensorView& tensor(const std::string& name) const;
  // What the rows of a tensor of kI8 are to be multiplied by, [rows, 1] in floats; Error(kData) if
  // that is missing.
  const model::TensorView& row_scales(const std::string& name) const;
  // Checks that every tensor of the layout is there with its shape, as tensor() does. Reads the
  // files' headers alone, so it takes neither memory nor time, however large the model.
  CheckpointFacts check() const;

 private:
  const model::TensorView& find(const std::string& name) const;

  std::string origin_;  // for messages
  model::WeightsDirectory weights_;
  DecoderLayout layout_;
  std::set<std::string> int8_matrices_, adapter_tensors_;
  std::optional<AdapterFile> adapter_;
};

struct ModelFiles {
  model::ModelConfig config;
  Checkpoint checkpoint;
};

// What `dir` holds, with the adapter of a file of its own unless that is empty. Error(kData) as
// read_model_config(), Checkpoint and AdapterFile; Error(kInvalidArgument) as require_adaptable().
ModelFiles open_model(const std::filesystem::path& dir, const std::filesystem::path& adapter_file);

}  // namespace dmc::model

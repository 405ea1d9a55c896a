// The tensors of a model directory under the names its family's layout gives them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>

#include "families/family.h"
#include "io/safetensors.h"

namespace dmc::families {

// What the files of a checkpoint hold of its layout.
struct CheckpointFacts {
  int64_t tensors = 0;
  int64_t bytes = 0;
  std::set<DType> dtypes;
};

class Checkpoint {
 public:
  // Maps the files of `dir`; Error(kData) if they are damaged.
  Checkpoint(const std::filesystem::path& dir, DecoderLayout layout)
      : weights_(dir), layout_(std::move(layout)) {}

  const DecoderLayout& layout() const { return layout_; }
  // The tensor of this name of the layout, in the file's own dtype; Error(kData) if it is missing
  // or has another shape. The layout's older names count too.
  const io::TensorView& tensor(const std::string& name) const;
  // Checks that every tensor of the layout is there with its shape, as tensor() does. Reads the
  // files' headers alone, so it takes neither memory nor time, however large the model.
  CheckpointFacts check() const;

 private:
  io::WeightsDirectory weights_;
  DecoderLayout layout_;
};

}  // namespace dmc::families

// The weights of a Hugging Face model directory: floats, or 8 bits with a scale for each row
// (quantization.h).
#pragma once

#include "model/matrix_source.h"
#include "model/safetensors.h"

namespace dmc::model {

// The tensor `name` of `tensors`, which must outlive the result; for one of kI8 its row scales,
// too. Error(kData) naming `origin` as WeightStore::open() says.
std::unique_ptr<const MatrixSource> open_matrix(const TensorMap& tensors, const std::string& origin,
                                                const std::string& name,
                                                const std::vector<int64_t>& shape);

class SafetensorsWeights : public WeightStore {
 public:
  // Maps the files of `dir`; Error(kData) if they are damaged.
  explicit SafetensorsWeights(const std::filesystem::path& dir)
      : origin_(dir.string()), files_(dir) {}

  bool has(const std::string& name) const override { return files_.tensors().contains(name); }
  std::unique_ptr<const MatrixSource> open(const std::string& name,
                                           const std::vector<int64_t>& shape) const override {
    return open_matrix(files_.tensors(), origin_, name, shape);
  }
  void require_whole() const override { files_.require_whole(); }

 private:
  std::string origin_;
  WeightsDirectory files_;
};

}  // namespace dmc::model

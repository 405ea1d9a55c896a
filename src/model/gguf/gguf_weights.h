// The weights of a GGUF file under the names of the family's layout, as a checkpoint has them.
#pragma once

#include "base/gguf.h"
#include "model/families/family.h"
#include "model/gguf/gguf_architecture.h"
#include "model/matrix_source.h"

namespace dmc::model {

class GgufWeights : public WeightStore {
 public:
  // Error(kData) for a damaged file, or one with tensors for which `layout` has no place: leaving
  // them out would run another model.
  GgufWeights(const std::filesystem::path& path, const DecoderLayout& layout);

  bool has(const std::string& name) const override { return tensor_of(name) != nullptr; }
  std::unique_ptr<const MatrixSource> open(const std::string& name,
                                           const std::vector<int64_t>& shape) const override;
  void require_whole() const override { file_.require_whole(); }

 private:
  const GgufTensor* tensor_of(const std::string& name) const;  // null: there is none
  int64_t interleaved_heads(const std::string& place) const;   // 0: rows stand as they should

  GgufFile file_;
  const GgufArchitecture& architecture_;
};

}  // namespace dmc::model

#include "families/checkpoint.h"

namespace dmc::families {

const io::TensorView& Checkpoint::tensor(const std::string& name) const {
  const std::vector<int64_t>& shape = layout_.shapes.at(name);
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
    const io::TensorView& view = tensor(name);
    ++facts.tensors;
    facts.bytes += static_cast<int64_t>(view.bytes.size());
    facts.dtypes.insert(view.dtype);
  }
  return facts;
}

}  // namespace dmc::families

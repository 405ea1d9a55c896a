// Builds a DecoderLayout: names a tensor of the checkpoint and notes its shape at once.
#pragma once

#include <string>

#include "model/families/family.h"

namespace dmc::model {

class LayoutBuilder {
 public:
  explicit LayoutBuilder(DecoderLayout* layout) : layout_(*layout) {}

  std::string table(const std::string& name, int64_t rows, int64_t columns);
  std::string vector(const std::string& name, int64_t width);
  NormSource rms_norm(const std::string& module, int64_t width);    // MODULE.weight
  NormSource layer_norm(const std::string& module, int64_t width);  // and MODULE.bias
  // MODULE.weight [rows, columns] and, if `bias`, MODULE.bias [rows].
  LinearSource linear(const std::string& module, int64_t rows, int64_t columns, bool bias);
  // The same stored as [columns, rows], as transformers' Conv1D does; always with a bias.
  LinearSource conv1d(const std::string& module, int64_t rows, int64_t columns);
  // The logits' matrix: the token embedding where it is tied, else MODULE.weight.
  LinearSource head(const std::string& module, const model::ModelConfig& config);

 private:
  DecoderLayout& layout_;
};

// Rows first..first+rows-1 of `fused`.
LinearSource rows_of(LinearSource fused, int64_t first, int64_t rows);

}  // namespace dmc::model

#include "model/families/layout_builder.h"

namespace dmc::model {

std::string LayoutBuilder::table(const std::string& name, int64_t rows, int64_t columns) {
  layout_.shapes[name] = {rows, columns};
  return name;
}

std::string LayoutBuilder::vector(const std::string& name, int64_t width) {
  layout_.shapes[name] = {width};
  return name;
}

NormSource LayoutBuilder::rms_norm(const std::string& module, int64_t width) {
  layout_.shapes[module + ".weight"] = {width};
  return {module + ".weight", ""};
}

NormSource LayoutBuilder::layer_norm(const std::string& module, int64_t width) {
  layout_.shapes[module + ".weight"] = layout_.shapes[module + ".bias"] = {width};
  return {module + ".weight", module + ".bias"};
}

LinearSource LayoutBuilder::linear(const std::string& module, int64_t rows, int64_t columns,
                                   bool bias) {
  layout_.shapes[module + ".weight"] = {rows, columns};
  if (bias) layout_.shapes[module + ".bias"] = {rows};
  return {module + ".weight", bias ? module + ".bias" : "", false, 0, rows, columns};
}

LinearSource LayoutBuilder::conv1d(const std::string& module, int64_t rows, int64_t columns) {
  layout_.shapes[module + ".weight"] = {columns, rows};
  layout_.shapes[module + ".bias"] = {rows};
  return {module + ".weight", module + ".bias", true, 0, rows, columns};
}

LinearSource LayoutBuilder::head(const std::string& module, const model::ModelConfig& config) {
  layout_.head_module = module;
  if (!config.tie_embeddings) return linear(module, config.vocab_size, config.hidden_size, false);
  return {layout_.token_embedding, "", false, 0, config.vocab_size, config.hidden_size};
}

LinearSource rows_of(LinearSource fused, int64_t first, int64_t rows) {
  fused.first += first;
  fused.rows = rows;
  return fused;
}

}  // namespace dmc::model

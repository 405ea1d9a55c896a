#include "models/kv_heads.h"

#include "base/error.h"

namespace dmc::models {
namespace {

void require_possible(const io::ModelConfig& config, int64_t kv_heads) {
  const std::string flag = "--kv-heads: ";
  if (!families::find_family(config.model_type)->grouped_queries) {
    throw usage_error(flag + "a " + config.model_type +
                      " model has a KV head for each query head; its family knows no other");
  }
  if (config.dmc) {
    throw usage_error(flag +
                      "the model was retrofitted, and heads that decide differently cannot be "
                      "merged; do this before `dmc retrofit`, or add --plain");
  }
  if (kv_heads < 1 || config.num_kv_heads % kv_heads != 0) {
    throw usage_error(flag + std::to_string(kv_heads) + " does not divide the model's " +
                      std::to_string(config.num_kv_heads) + " KV heads");
  }
}

// [old heads * d, ...] to [heads * d, ...].
at::Tensor mean_of_heads(const at::Tensor& rows, int64_t heads, int64_t d) {
  const at::Tensor grouped = rows.to(at::kFloat).unflatten(0, at::IntArrayRef{heads, -1, d});
  return grouped.mean(1).flatten(0, 1).to(rows.scalar_type());
}

}  // namespace

Decoder pool_kv_heads(const Decoder& model, int64_t kv_heads) {
  require_possible(model.config(), kv_heads);
  io::ModelConfig config = model.config();
  config.num_kv_heads = kv_heads;
  std::map<std::string, at::Tensor> parameters = model.parameters();
  for (const families::LayerLayout& layer : model.layout().layers) {
    for (const families::LinearSource& source : {layer.k, layer.v}) {
      parameters[source.weight] = mean_of_heads(model.weight(source), kv_heads, config.head_dim);
      if (source.bias.empty()) continue;
      parameters[source.bias] = mean_of_heads(model.bias(source), kv_heads, config.head_dim);
    }
  }
  return Decoder(config, std::move(parameters));
}

}  // namespace dmc::models

#include "nn/kv_heads.h"

#include "base/error.h"

namespace dmc::nn {
namespace {

void require_possible(const model::ModelConfig& config, int64_t kv_heads) {
  const std::string field = "kv_heads";
  if (!model::find_family(config.model_type)->grouped_queries) {
    throw invalid_argument(
        field, "a " + config.model_type +
                   " model has a KV head for each query head; its family knows no other");
  }
  if (config.dmc) {
    throw invalid_argument(field,
                           "the model was retrofitted, and heads that decide differently cannot be "
                           "merged; do this before `dmc retrofit`, or add --plain");
  }
  if (kv_heads < 1 || config.num_kv_heads % kv_heads != 0) {
    throw invalid_argument(field, std::to_string(kv_heads) + " does not divide the model's " +
                                      std::to_string(config.num_kv_heads) + " KV heads");
  }
}

// [old heads * d, ...] to [heads * d, ...].
at::Tensor mean_of_heads(const at::Tensor& rows, int64_t heads, int64_t d) {
  const at::Tensor grouped = rows.to(at::kFloat).unflatten(0, at::IntArrayRef{heads, -1, d});
  return grouped.mean(1).flatten(0, 1).to(rows.scalar_type());
}

// `whole` with `rows` where it has those of `source`.
at::Tensor with_rows(const at::Tensor& whole, const model::LinearSource& source,
                     const at::Tensor& rows) {
  const int64_t behind = source.first + source.rows;
  return at::cat(
      {whole.narrow(0, 0, source.first), rows, whole.narrow(0, behind, whole.size(0) - behind)});
}

}  // namespace

Decoder pool_kv_heads(const Decoder& model, int64_t kv_heads) {
  require_possible(model.config(), kv_heads);
  model::ModelConfig config = model.config();
  config.num_kv_heads = kv_heads;
  std::map<std::string, at::Tensor> parameters = model.parameters();
  for (const model::LayerLayout& layer : model.layout().layers) {
    // Where both are rows of one tensor, v's stand behind k's, which so stay where they are.
    for (const model::LinearSource& source : {layer.v, layer.k}) {
      at::Tensor& weight = parameters[source.weight];
      weight =
          with_rows(weight, source, mean_of_heads(model.weight(source), kv_heads, config.head_dim));
      if (source.bias.empty()) continue;
      at::Tensor& bias = parameters[source.bias];
      bias = with_rows(bias, source, mean_of_heads(model.bias(source), kv_heads, config.head_dim));
    }
  }
  return Decoder(config, std::move(parameters));
}

}  // namespace dmc::nn

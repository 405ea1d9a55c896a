#include "runtime/decoder.h"

#include "base/error.h"

namespace dmc::runtime {
namespace {

void run_attention(Backend& backend, const model::ModelConfig& config, int layer, int64_t rows,
                   const std::function<void(int)>& attend) {
  backend.multiply(Product::kQkv, layer, rows);
  if (config.has_adapter()) backend.apply_adapter(layer, rows);
  backend.split_heads(layer, rows);
  attend(layer);
  backend.multiply(Product::kOutput, layer, rows);
}

void run_mlp(Backend& backend, int layer, int64_t rows) {
  backend.multiply(Product::kUp, layer, rows);
  backend.activate(rows);
  backend.multiply(Product::kDown, layer, rows);
}

}  // namespace

void run_layers(Backend& backend, const model::ModelConfig& config, int64_t rows,
                const std::function<void(int)>& attend) {
  const bool behind = config.post_norm;  // norms stand behind a layer's halves, not in front
  backend.embed(rows);
  if (backend.has_norm(NormAt::kEmbedding)) {
    backend.norm(NormAt::kEmbedding, 0, /*adds_delta=*/false, /*replaces_x=*/true, rows);
  }
  DMC_CHECK(backend.has_norm(NormAt::kFinal) || behind);  // which adds the last delta
  for (int layer = 0; layer < static_cast<int>(config.num_layers); ++layer) {
    if (!behind) backend.norm(NormAt::kAttention, layer, layer > 0, false, rows);
    run_attention(backend, config, layer, rows, attend);
    backend.norm(behind ? NormAt::kAttention : NormAt::kMlp, layer, true, behind, rows);
    run_mlp(backend, layer, rows);
    if (behind) backend.norm(NormAt::kMlp, layer, true, true, rows);
  }
  if (backend.has_norm(NormAt::kFinal)) backend.norm(NormAt::kFinal, 0, !behind, false, rows);
}

}  // namespace dmc::runtime

#include "model/published.h"

#include "base/join.h"
#include "base/named.h"

namespace dmc::model {
namespace {

struct Row {
  std::string_view name, model_type;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, context;
  bool tied;
};

constexpr Row kRows[] = {
    {"tinyllama-1.1b", "llama", 32000, 2048, 5632, 22, 32, 4, 64, 2048, false},
    {"llama-2-7b", "llama", 32000, 4096, 11008, 32, 32, 32, 128, 4096, false},
    {"llama-2-13b", "llama", 32000, 5120, 13824, 40, 40, 40, 128, 4096, false},
    {"llama-2-70b", "llama", 32000, 8192, 28672, 80, 64, 8, 128, 4096, false},
    {"llama-3-8b", "llama", 128256, 4096, 14336, 32, 32, 8, 128, 8192, false},
    {"llama-3-70b", "llama", 128256, 8192, 28672, 80, 64, 8, 128, 8192, false},
    {"llama-3.2-1b", "llama", 128256, 2048, 8192, 16, 32, 8, 64, 131072, true},
    {"llama-3.2-3b", "llama", 128256, 3072, 8192, 28, 24, 8, 128, 131072, true},
    {"llama-3.1-8b", "llama", 128256, 4096, 14336, 32, 32, 8, 128, 131072, false},
    {"llama-3.1-70b", "llama", 128256, 8192, 28672, 80, 64, 8, 128, 131072, false},
    {"llama-3.1-405b", "llama", 128256, 16384, 53248, 126, 128, 8, 128, 131072, false},
    {"mistral-7b", "mistral", 32768, 4096, 14336, 32, 32, 8, 128, 32768, false},
    {"mistral-nemo-12b", "mistral", 131072, 5120, 14336, 40, 32, 8, 128, 131072, false},
    {"qwen2.5-0.5b", "qwen2", 151936, 896, 4864, 24, 14, 2, 64, 32768, true},
    {"qwen2.5-1.5b", "qwen2", 151936, 1536, 8960, 28, 12, 2, 128, 32768, true},
    {"qwen2.5-7b", "qwen2", 152064, 3584, 18944, 28, 28, 4, 128, 32768, false},
    {"qwen2.5-72b", "qwen2", 152064, 8192, 29568, 80, 64, 8, 128, 32768, false},
    {"qwen3-0.6b", "qwen3", 151936, 1024, 3072, 28, 16, 8, 128, 40960, true},
    {"qwen3-4b", "qwen3", 151936, 2560, 9728, 36, 32, 8, 128, 40960, true},
    {"qwen3-8b", "qwen3", 151936, 4096, 12288, 36, 32, 8, 128, 40960, false},
    {"qwen3-14b", "qwen3", 151936, 5120, 17408, 40, 40, 8, 128, 40960, false},
    {"qwen3-32b", "qwen3", 151936, 5120, 25600, 64, 64, 8, 128, 40960, false},
    {"phi-3-mini", "phi3", 32064, 3072, 8192, 32, 32, 32, 96, 4096, false},
    {"phi-4", "phi3", 100352, 5120, 17920, 40, 40, 10, 128, 16384, false},
    {"smollm2-135m", "llama", 49152, 576, 1536, 30, 9, 3, 64, 8192, true},
    {"smollm2-1.7b", "llama", 49152, 2048, 8192, 24, 32, 32, 64, 8192, true},
};

}  // namespace

std::optional<model::ModelConfig> published_model(std::string_view name) {
  const Row* const row = find_named(kRows, name);
  if (row == nullptr) return std::nullopt;
  model::ModelConfig config;
  config.model_type = row->model_type;
  config.vocab_size = row->vocab;
  config.hidden_size = row->hidden;
  config.intermediate_size = row->intermediate;
  config.num_layers = row->layers;
  config.num_heads = row->heads;
  config.num_kv_heads = row->kv_heads;
  config.head_dim = row->head_dim;
  config.max_positions = row->context;
  config.tie_embeddings = row->tied;
  config.attention_bias = row->model_type == "qwen2";
  config.qk_norm = row->model_type == "qwen3";
  return config;
}

std::string published_names() { return join(kRows, ", ", &Row::name); }

}  // namespace dmc::model

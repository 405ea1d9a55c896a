#include "runtime/plan.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cache/kv_cache.h"
#include "kernels/groups.h"
#include "model/shard_plan.h"

namespace dmc::runtime {
namespace {

constexpr int kMergeWindow = 12;  // tokens an open slot keeps, unless the model says otherwise

// A weight of 4 bits has its share of a group's scale and minimum.
double bytes_of(DType type) {
  if (type != DType::kI4) return static_cast<double>(dtype_size(type));
  return static_cast<double>(sizeof(kernels::WeightGroup4)) /
         static_cast<double>(kernels::WeightGroup4::kOutputs * kernels::kGroup);
}

int merge_window(const model::ModelConfig& config, double cr) {
  if (config.dmc) return static_cast<int>(config.dmc->window);
  return cr > 1.0 ? kMergeWindow : 1;  // a dense cache merges nothing
}

cache::CacheBytes stream_bytes(const model::ModelConfig& config, const PlanRequest& request) {
  cache::CacheConfig cache;
  cache.head_dim = static_cast<int>(config.head_dim);
  cache.window = merge_window(config, request.cr);
  cache.slot_type = request.slots;
  const int64_t raw = config.dmc ? std::min(config.dmc->delay, request.context) : 0;
  const double slots =
      static_cast<double>(raw) + std::ceil(static_cast<double>(request.context - raw) / request.cr);
  return cache::stream_bytes(cache, static_cast<int64_t>(slots));
}

// Numbers in a token's activations, by what they are as wide as.
struct Widths {
  double hidden, query, kv, mlp, vocab;

  explicit Widths(const model::ModelConfig& c)
      : hidden(static_cast<double>(c.hidden_size)),
        query(static_cast<double>(c.num_heads) * static_cast<double>(c.head_dim)),
        kv(static_cast<double>(c.num_kv_heads) * static_cast<double>(c.head_dim)),
        mlp(static_cast<double>(c.intermediate_size)),
        vocab(static_cast<double>(c.vocab_size)) {}
};

bool gated(const model::ModelConfig& config) {
  return config.activation == model::Activation::kSiluGated;
}

ServingPlan serving(const model::ModelConfig& config, double parameters,
                    const PlanRequest& request) {
  const auto batch = static_cast<double>(request.batch);
  const double streams = batch * static_cast<double>(config.num_layers * config.num_kv_heads);
  const cache::CacheBytes stream = stream_bytes(config, request);
  const Widths w(config);
  // At most, a layer holds its input, the normed input and either q, k, v and what they gave, or
  // the MLP's inner activations.
  const double block = std::max(2.0 * w.query + 2.0 * w.kv, (gated(config) ? 3.0 : 2.0) * w.mlp);
  const double tokens = std::max(batch, static_cast<double>(request.context));
  ServingPlan plan;
  plan.weights = parameters * bytes_of(request.weights);
  plan.cache = streams * static_cast<double>(stream.pages + stream.tables);
  plan.open_slots = streams * static_cast<double>(stream.open_slots);
  plan.activations = bytes_of(DType::kF32) * (tokens * (2.0 * w.hidden + block) + batch * w.vocab);
  return plan;
}

// What a layer keeps of a token for its backward pass: the inputs of its two norms and what they
// gave; k and v before and after pooling, q rotated, and attention's output; of the MLP all that
// its products read. DMC or dense makes little difference.
double kept_by_layer(const model::ModelConfig& config) {
  const Widths w(config);
  return 4.0 * w.hidden + 2.0 * w.query + 4.0 * w.kv + (gated(config) ? 4.0 : 2.0) * w.mlp;
}

TrainingPlan training(const model::ModelConfig& config, double parameters,
                      const PlanRequest& request) {
  DMC_CHECK(request.training == DType::kF32 || request.training == DType::kBF16);
  constexpr double kLogitCopies = 4.0;  // logits, their log-softmax and both gradients
  const double f32 = bytes_of(DType::kF32), compute = bytes_of(request.training);
  const auto tokens = static_cast<double>(request.batch) * static_cast<double>(request.context);
  const double layers = static_cast<double>(config.num_layers) * kept_by_layer(config);
  const double copy = request.training == DType::kF32 ? 0.0 : compute;
  TrainingPlan plan;
  plan.weights = parameters * (f32 + copy);
  plan.gradients = parameters * f32;
  plan.optimizer = parameters * 2.0 * f32;
  plan.activations =
      tokens * (layers * compute + kLogitCopies * static_cast<double>(config.vocab_size) * f32);
  return plan;
}

double embedding_parameters(const model::ModelConfig& config) {
  const Widths w(config);
  return w.vocab * w.hidden * (config.tie_embeddings ? 1.0 : 2.0);
}

// Of norms and of learned positions, which every rank has; biases are too few to count.
double whole_parameters(const model::ModelConfig& config) {
  const double norms = 2.0 * static_cast<double>(config.num_layers) + 1.0;
  const double positions = config.learned_positions ? static_cast<double>(config.max_positions) : 0;
  return (norms + positions) * static_cast<double>(config.hidden_size);
}

}  // namespace

ServingPlan serving_of_rank(const model::ModelConfig& config, double parameters,
                            const PlanRequest& request, int ranks) {
  const model::ModelConfig part = model::config_of_shard(config, plan_shard(config, 0, ranks));
  const double whole = ranks > 1 ? whole_parameters(config) : 0.0;
  return serving(part, whole + (parameters - whole) / ranks, request);
}

double sharded_training(const model::ModelConfig& config, double parameters,
                        const PlanRequest& request, int64_t processes) {
  DMC_CHECK(request.batch > 0 && request.context > 0 && processes > 0);
  constexpr double kMostLogits = 0x1p24;  // at once, forward and backward
  constexpr double kLogitCopies = 4.0;
  const double f32 = bytes_of(DType::kF32), compute = bytes_of(request.training);
  const double state = parameters * 4.0 * f32 / static_cast<double>(processes);
  const double embedding = embedding_parameters(config);
  const double layer = (parameters - embedding) / static_cast<double>(config.num_layers);
  // Weights and their gradients; of a layer each also as the buffer it is communicated in.
  const double whole = (embedding + 2.0 * layer) * (compute + f32);
  const auto rows = static_cast<double>((request.batch + processes - 1) / processes);
  const double tokens = rows * static_cast<double>(request.context);
  const double logits = std::min(kMostLogits, tokens * static_cast<double>(config.vocab_size));
  const double layers = static_cast<double>(config.num_layers) * kept_by_layer(config);
  return state + whole + tokens * layers * compute + kLogitCopies * logits * f32;
}

Plan plan(const model::ModelConfig& config, double parameters, const PlanRequest& request) {
  DMC_CHECK(request.batch > 0 && request.context > 0 && request.cr >= 1.0);
  const double layers_heads = static_cast<double>(config.num_layers * config.num_kv_heads);
  const double scales = is_scaled(request.slots) ? bytes_of(DType::kF32) : 0.0;
  const double row = static_cast<double>(config.head_dim) * bytes_of(request.slots) + scales;
  return {2.0 * layers_heads * row, serving(config, parameters, request),
          training(config, parameters, request)};
}

}  // namespace dmc::runtime

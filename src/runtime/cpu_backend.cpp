#include "runtime/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/backend.h"
#include "kernels/dot.h"
#include "kernels/rope.h"
#include "policy/holding.h"

namespace dmc::runtime {
namespace {

constexpr int64_t kRowsAtOnce = 16;  // of work that is small for one row

void each_row(int64_t rows, const std::function<void(int64_t)>& fn) {
  parallel_for(0, rows, kRowsAtOnce, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) fn(row);
  });
}

// to = norm(from), `width` numbers; may be the same.
void norm_row(const Norm& norm, const float* from, int64_t width, float* to) {
  float mean = 0.0f;
  if (norm.kind == model::NormKind::kLayer) {
    for (int64_t i = 0; i < width; ++i) mean += from[i];
    mean /= static_cast<float>(width);
  }
  for (int64_t i = 0; i < width; ++i) to[i] = from[i] - mean;
  const double variance =
      static_cast<double>(kernels::dot(to, to, width)) / static_cast<double>(width);
  const auto factor = static_cast<float>(1.0 / std::sqrt(variance + norm.eps));
  for (int64_t i = 0; i < width; ++i) to[i] *= factor * norm.weight[static_cast<size_t>(i)];
  if (norm.bias.empty()) return;
  for (int64_t i = 0; i < width; ++i) to[i] += norm.bias[static_cast<size_t>(i)];
}

float gelu(float x) { return 0.5f * x * (1.0f + std::erf(x * std::numbers::sqrt2_v<float> / 2)); }

float gelu_tanh(float x) {
  const float inner = std::sqrt(2.0f * std::numbers::inv_pi_v<float>) * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + std::tanh(inner));
}

// to[width] of what up's matrix gave: gate and up, or up alone. They may be the same.
void activate_row(model::Activation activation, const float* from, int64_t width, float* to) {
  switch (activation) {
    case model::Activation::kSiluGated:
      kernels::backend().silu_product(from, from + width, width, to);
      return;
    case model::Activation::kGelu:
      std::transform(from, from + width, to, gelu);
      return;
    case model::Activation::kGeluTanh:
      std::transform(from, from + width, to, gelu_tanh);
      return;
  }
}

// The last of `dim` channels of `count` heads, `stride` apart.
void clear_last(float* heads, int64_t count, int64_t stride, int64_t dim) {
  for (int64_t h = 0; h < count; ++h) heads[h * stride + dim - 1] = 0.0f;
}

}  // namespace

double CpuBackend::held_ratio(cache::SequenceId sequence) const {
  const auto own = held_.find(sequence);
  return own != held_.end() ? own->second : knobs_.held_cr;
}

// Slots that are marked count as gone: their delay must not make the control swing.
std::vector<int64_t> CpuBackend::kept_slots(const Pass& pass) const {
  std::vector<int64_t> own;
  for (const PassItem& item : pass.items) {
    own.push_back(cache_.slots(item.sequence) - cache_.marked(item.sequence));
  }
  std::vector<int64_t> all(own.size() * static_cast<size_t>(shard_.ranks));
  group_.all_gather(own.data(), std::ssize(own), DType::kI64, all.data(), nullptr);
  for (size_t i = 0; i < own.size(); ++i) {
    own[i] = 0;
    for (size_t from = i; from < all.size(); from += own.size()) own[i] += all[from];
  }
  return own;
}

std::vector<float> CpuBackend::biases_of(const Pass& pass) const {
  std::vector<float> biases(pass.items.size(), static_cast<float>(knobs_.bias));
  const auto is_held = [&](const PassItem& item) { return held_ratio(item.sequence) > 0.0; };
  if (std::ranges::none_of(pass.items, is_held)) return biases;
  const auto streams = static_cast<double>(config_.num_layers * all_kv_heads_);
  const std::vector<int64_t> slots = kept_slots(pass);
  for (size_t i = 0; i < biases.size(); ++i) {
    const PassItem& item = pass.items[i];
    if (!is_held(item)) continue;
    biases[i] += static_cast<float>(policy::holding_bias(cache_.length(item.sequence),
                                                         static_cast<double>(slots[i]) / streams,
                                                         held_ratio(item.sequence)));
  }
  return biases;
}

void CpuBackend::place_rows(const Pass& pass) {
  tokens_.clear(), positions_.clear(), biases_.clear(), decoding_.clear();
  const std::vector<float> biases = biases_of(pass);
  for (size_t n = 0; n < pass.items.size(); ++n) {
    const PassItem& item = pass.items[n];
    const int64_t length = cache_.length(item.sequence);
    for (int64_t i = 0; i < std::ssize(item.tokens); ++i) positions_.push_back(length + i);
    tokens_.insert(tokens_.end(), item.tokens.begin(), item.tokens.end());
    biases_.resize(tokens_.size(), biases[n]);
    if (n < pass.decoding) decoding_.push_back(item.sequence);
  }
  reserve(std::ssize(tokens_));
}

// Room for the numbers of so many rows.
void CpuBackend::reserve(int64_t rows) {
  const int64_t D = config_.hidden_size, width = config_.intermediate_size, d = config_.head_dim;
  const int64_t queries = config_.num_heads * d, pairs = config_.num_kv_heads * d;
  const bool gated = config_.activation == model::Activation::kSiluGated;
  const auto fit = [rows](auto& numbers, int64_t count) {
    numbers.resize(static_cast<size_t>(rows * count));
  };
  for (std::vector<float>* numbers : {&x_, &normed_, &delta_}) fit(*numbers, D);
  fit(projected_, std::max(queries + 2 * pairs, gated ? 2 * width : width));
  fit(inner_, std::max(width, D));
  for (std::vector<float>* numbers : {&q_, &mixed_}) fit(*numbers, queries);
  for (std::vector<float>* numbers : {&k_, &v_}) fit(*numbers, pairs);
  fit(decisions_, config_.num_kv_heads);
  fit(importance_, config_.num_kv_heads);
  if (config_.has_adapter()) fit(adapted_, config_.adapter_outputs());
}

// Another rank's token is zeros here, so that the sum over all ranks is its embedding.
void CpuBackend::embed(int64_t rows) {
  const int64_t D = config_.hidden_size;
  each_row(rows, [&](int64_t row) {
    float* const x = &x_[static_cast<size_t>(row * D)];
    const int64_t token = tokens_[static_cast<size_t>(row)];
    if (shard_.vocab.has(token)) {
      weights_.embedding->get_row(token - shard_.vocab.first, x);
    } else {
      std::fill_n(x, D, 0.0f);
    }
  });
  group_.all_reduce(x_.data(), rows * D, DType::kF32, nullptr);
  if (weights_.positions.empty() && weights_.token_type.empty()) return;
  each_row(rows, [&](int64_t row) {
    float* const x = &x_[static_cast<size_t>(row * D)];
    if (!weights_.positions.empty()) {
      const float* const p =
          &weights_.positions[static_cast<size_t>(positions_[static_cast<size_t>(row)] * D)];
      for (int64_t i = 0; i < D; ++i) x[i] += p[i];
    }
    if (!weights_.token_type.empty()) {
      for (int64_t i = 0; i < D; ++i) x[i] += weights_.token_type[static_cast<size_t>(i)];
    }
  });
}

const Norm& CpuBackend::norm_at(NormAt at, int layer) const {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  switch (at) {
    case NormAt::kEmbedding:
      return weights_.embedding_norm;
    case NormAt::kAttention:
      return w.attention_norm;
    case NormAt::kMlp:
      return w.mlp_norm;
    default:
      return weights_.final_norm;
  }
}

void CpuBackend::norm(NormAt at, int layer, bool adds_delta, bool replaces_x, int64_t rows) {
  const Norm& norm = norm_at(at, layer);
  const int64_t D = config_.hidden_size;
  each_row(rows, [&](int64_t row) {
    float* const x = &x_[static_cast<size_t>(row * D)];
    float* const normed = &normed_[static_cast<size_t>(row * D)];
    if (adds_delta) {
      const float* const delta = &delta_[static_cast<size_t>(row * D)];
      for (int64_t i = 0; i < D; ++i) x[i] += delta[i];
    }
    norm_row(norm, x, D, normed);
    if (replaces_x) std::copy_n(normed, D, x);
  });
}

// What takes heads or inner numbers has those of this rank alone: the sum of all is the product.
void CpuBackend::multiply(Product product, int layer, int64_t rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  switch (product) {
    case Product::kQkv:
      return w.qkv.apply(normed_.data(), rows, projected_.data());
    case Product::kUp:
      return w.up.apply(normed_.data(), rows, projected_.data());
    case Product::kOutput:
      w.o.apply(mixed_.data(), rows, delta_.data());
      break;
    case Product::kDown:
      w.down.apply(inner_.data(), rows, delta_.data());
      break;
  }
  group_.all_reduce(delta_.data(), rows * config_.hidden_size, DType::kF32, nullptr);
}

void CpuBackend::activate(int64_t rows) {
  const int64_t width = config_.intermediate_size;
  const int64_t wide = config_.activation == model::Activation::kSiluGated ? 2 * width : width;
  each_row(rows, [&](int64_t row) {
    activate_row(config_.activation, &projected_[static_cast<size_t>(row * wide)], width,
                 &inner_[static_cast<size_t>(row * width)]);
  });
}

void CpuBackend::apply_adapter(int layer, int64_t rows) {
  const Adapter& adapter = *weights_.layers[static_cast<size_t>(layer)].adapter;
  const int64_t D = config_.hidden_size;
  each_row(rows, [&](int64_t row) {
    const auto at = static_cast<size_t>(row * D);
    norm_row(adapter.norm, &x_[at], D, &inner_[at]);
  });
  adapter.projection.apply(inner_.data(), rows, adapted_.data());
}

// Without an adapter: of a token whose projected row still has its decision channels.
void CpuBackend::read_decision(int64_t row, int64_t head, policy::DecisionInput* in) const {
  const int64_t d = config_.head_dim, H = config_.num_heads, K = config_.num_kv_heads;
  if (config_.has_adapter()) {
    const float* const said = &adapted_[static_cast<size_t>(row * config_.adapter_outputs())];
    in->decision = said[head];
    if (config_.dmc->pools()) in->importance = said[K + head];
    return;
  }
  const int64_t G = config_.group_size();
  const float* const channels = &projected_[static_cast<size_t>((row * (H + 2 * K) + 1) * d - 1)];
  if (config_.has_query_channel()) {
    in->decision = channels[head * G * d];
    return;
  }
  float sum = 0.0f;
  for (int64_t g = 0; g < G; ++g) sum += channels[(head * G + g) * d];
  in->decision = channels[(H + head) * d];
  in->importance = sum / static_cast<float>(G);
}

policy::Verdict CpuBackend::decide(int layer, int64_t row, int64_t head) const {
  policy::DecisionInput in;
  read_decision(row, head, &in);
  if (config_.dmc) in.constants = config_.dmc->constants();
  in.bias = biases_[static_cast<size_t>(row)];
  in.stream = layer * all_kv_heads_ + shard_.kv_heads.first + head;
  in.position = positions_[static_cast<size_t>(row)];
  in.forced_cr = knobs_.forced_cr;
  return policy_.decide(in);
}

void CpuBackend::split_heads(int layer, int64_t rows) {
  const int64_t d = config_.head_dim, H = config_.num_heads, K = config_.num_kv_heads;
  const int64_t width = (H + 2 * K) * d;
  const kernels::RopeTable* const rope = cache_.config().rope;
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  each_row(rows, [&](int64_t row) {
    float* const from = &projected_[static_cast<size_t>(row * width)];
    if (w.q_norm.present()) {
      for (int64_t h = 0; h < H; ++h) {
        norm_row(w.q_norm, from + h * d, d, from + h * d);
      }
      for (int64_t h = H; h < H + K; ++h) {
        norm_row(w.k_norm, from + h * d, d, from + h * d);
      }
    }
    const int64_t at = positions_[static_cast<size_t>(row)];
    for (int64_t head = 0; head < K; ++head) {
      const policy::Verdict verdict = decide(layer, row, head);
      decisions_[static_cast<size_t>(row * K + head)] = verdict.decision;
      importance_[static_cast<size_t>(row * K + head)] = verdict.importance;
    }
    // Attention was trained without them, so it is whatever the policy.
    if (config_.has_decision_channel()) clear_last(from, H + K, d, d);
    if (config_.has_query_channel()) clear_last(from, K, config_.group_size() * d, d);
    float* const q = &q_[static_cast<size_t>(row * H * d)];
    for (int64_t h = 0; h < H; ++h) {
      if (rope == nullptr) {
        std::copy_n(from + h * d, d, q + h * d);
      } else {
        kernels::rotate(from + h * d, q + h * d, d, rope->cos_at(at), rope->sin_at(at));
      }
    }
    if (config_.has_query_channel()) clear_last(q, K, config_.group_size() * d, d);
    std::copy_n(from + H * d, K * d, &k_[static_cast<size_t>(row * K * d)]);
    std::copy_n(from + (H + K) * d, K * d, &v_[static_cast<size_t>(row * K * d)]);
  });
}

// The decoding rows in one call of the cache, which come first; then chunk by chunk.
void CpuBackend::attend(int layer, const Pass& pass) {
  if (!pass.chunks().empty() && cancelled_ && cancelled_()) {
    throw Error(ErrorCode::kCancelled, "the prompt was given up while it was taken in");
  }
  const int64_t d = config_.head_dim, H = config_.num_heads, K = config_.num_kv_heads;
  const auto tokens = [&](int64_t row, int64_t count) {
    const auto scalars = static_cast<size_t>(row * K), pairs = scalars * static_cast<size_t>(d);
    const auto queries = static_cast<size_t>(row * H * d);
    return cache::LayerTokens{count,
                              q_.data() + queries,
                              k_.data() + pairs,
                              v_.data() + pairs,
                              decisions_.data() + scalars,
                              importance_.data() + scalars,
                              mixed_.data() + queries};
  };
  auto row = std::ssize(decoding_);
  if (row > 0) cache_.decode(decoding_, layer, tokens(0, row));
  for (const PassItem& chunk : pass.chunks()) {
    cache_.prefill(chunk.sequence, layer, tokens(row, std::ssize(chunk.tokens)));
    row += std::ssize(chunk.tokens);
  }
}

std::span<const float> CpuBackend::hidden(const Pass& pass) {
  place_rows(pass);
  run_layers(*this, config_, std::ssize(tokens_), [&](int layer) { attend(layer, pass); });
  return normed_;
}

void CpuBackend::logits(const float* hidden, int64_t rows, float* to) const {
  const int64_t D = config_.hidden_size;
  std::vector<float> transformed;
  if (weights_.head_transform) {
    transformed.resize(static_cast<size_t>(rows * D));
    weights_.head_transform->apply(hidden, rows, transformed.data());
    for (int64_t row = 0; row < rows; ++row) {
      float* const x = &transformed[static_cast<size_t>(row * D)];
      activate_row(config_.activation, x, D, x);
      norm_row(weights_.head_norm, x, D, x);
    }
    hidden = transformed.data();
  }
  if (shard_.ranks == 1) return multiply_head(hidden, rows, to);
  constexpr int64_t kRowsGathered = 64;  // at once, which bounds the memory for all ranks' parts
  for (int64_t row = 0; row < rows; row += kRowsGathered) {
    gather_logits(hidden + row * D, std::min(kRowsGathered, rows - row),
                  to == nullptr ? nullptr : to + row * config_.vocab_size);
  }
}

void CpuBackend::multiply_head(const float* hidden, int64_t rows, float* to) const {
  kernels::linear(*weights_.head, weights_.head_bias.empty() ? nullptr : weights_.head_bias.data(),
                  hidden, rows, to);
}

void CpuBackend::gather_logits(const float* hidden, int64_t rows, float* to) const {
  const int64_t vocab = config_.vocab_size, ranks = shard_.ranks;
  const int64_t room = rows * ((vocab + ranks - 1) / ranks);  // for the largest part
  std::vector<float> own(static_cast<size_t>(room)), all(static_cast<size_t>(room * ranks));
  multiply_head(hidden, rows, own.data());
  group_.all_gather(own.data(), room, DType::kF32, all.data(), nullptr);
  if (to == nullptr) return;
  int64_t first = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t count = model::vocabulary_part(vocab, rank, shard_.ranks).count;
    for (int64_t row = 0; row < rows; ++row) {
      std::copy_n(all.data() + rank * room + row * count, count, to + row * vocab + first);
    }
    first += count;
  }
}

}  // namespace dmc::runtime

#include "runtime/decoder.h"

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

void norm_rows(const Norm& norm, const std::vector<float>& from, int64_t rows,
               std::vector<float>& to) {
  const auto width = static_cast<int64_t>(norm.weight.size());
  to.resize(from.size());
  each_row(rows, [&](int64_t row) {
    norm_row(norm, &from[static_cast<size_t>(row * width)], width,
             &to[static_cast<size_t>(row * width)]);
  });
}

float gelu(float x) { return 0.5f * x * (1.0f + std::erf(x * std::numbers::sqrt2_v<float> / 2)); }

float gelu_tanh(float x) {
  const float inner = std::sqrt(2.0f * std::numbers::inv_pi_v<float>) * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.0f + std::tanh(inner));
}

// to[width] of what up's matrix gave: gate and up, or up alone. They may be the same.
void activate(model::Activation activation, const float* from, int64_t width, float* to) {
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

void add(std::vector<float>& sum, const std::vector<float>& part) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
}

}  // namespace

void Decoder::find_positions(const Batch& batch) {
  positions_.resize(static_cast<size_t>(rows_));
  for (int64_t row = 0; row < rows_; ++row) {
    positions_[static_cast<size_t>(row)] =
        batch.decode ? cache_.length(batch.sequences[static_cast<size_t>(row)])
                     : cache_.length(batch.sequences[0]) + row;
  }
}

void Decoder::embed(const Batch& batch) {
  const int64_t D = config_.hidden_size;
  x_.resize(static_cast<size_t>(rows_ * D));
  each_row(rows_, [&](int64_t row) {
    float* const x = &x_[static_cast<size_t>(row * D)];
    weights_.embedding->get_row(batch.tokens[static_cast<size_t>(row)], x);
    if (!weights_.positions.empty()) {
      const float* const p =
          &weights_.positions[static_cast<size_t>(positions_[static_cast<size_t>(row)] * D)];
      for (int64_t i = 0; i < D; ++i) x[i] += p[i];
    }
    if (!weights_.token_type.empty()) {
      for (int64_t i = 0; i < D; ++i) x[i] += weights_.token_type[static_cast<size_t>(i)];
    }
    if (weights_.embedding_norm.present()) norm_row(weights_.embedding_norm, x, D, x);
  });
}

void Decoder::set_biases(const Batch& batch) {
  biases_.assign(static_cast<size_t>(rows_), static_cast<float>(knobs_.bias));
  if (knobs_.held_cr == 0.0) return;
  const auto streams = static_cast<double>(config_.num_layers * config_.num_kv_heads);
  const auto holding = [&](cache::SequenceId id) {
    // Slots that are marked count as gone: their delay must not make the control swing.
    const auto slots = static_cast<double>(cache_.slots(id) - cache_.marked(id)) / streams;
    return static_cast<float>(policy::holding_bias(cache_.length(id), slots, knobs_.held_cr));
  };
  const float of_first = holding(batch.sequences[0]);
  for (size_t row = 0; row < biases_.size(); ++row) {
    biases_[row] += batch.decode && row > 0 ? holding(batch.sequences[row]) : of_first;
  }
}

// What the layer's adapter says of the tokens, from the residual stream.
void Decoder::apply_adapter(const LayerWeights& layer) {
  adapted_.resize(static_cast<size_t>(rows_ * config_.adapter_outputs()));
  norm_rows(layer.adapter->norm, x_, rows_, inner_);
  layer.adapter->projection.apply(inner_.data(), rows_, adapted_.data());
}

// Without an adapter: of a token whose projected row still has its decision channel.
void Decoder::read_decision(int64_t row, int64_t head, policy::DecisionInput* in) const {
  const int64_t d = config_.head_dim, H = config_.num_heads, K = config_.num_kv_heads;
  if (config_.has_adapter()) {
    const float* const said = &adapted_[static_cast<size_t>(row * config_.adapter_outputs())];
    in->decision = said[head];
    if (config_.dmc->pools()) in->importance = said[K + head];
    return;
  }
  const int64_t G = config_.group_size();
  const float* const channels = &projected_[static_cast<size_t>((row * (H + 2 * K) + 1) * d - 1)];
  float sum = 0.0f;
  for (int64_t g = 0; g < G; ++g) sum += channels[(head * G + g) * d];
  in->decision = channels[(H + head) * d];
  in->importance = sum / static_cast<float>(G);
}

policy::Decision Decoder::decide(int layer, int64_t row, int64_t head) const {
  policy::DecisionInput in;
  read_decision(row, head, &in);
  if (config_.dmc) {
    in.offset = static_cast<float>(config_.dmc->decision_offset);
    in.epsilon = static_cast<float>(config_.dmc->importance_epsilon);
  }
  in.bias = biases_[static_cast<size_t>(row)];
  in.stream = layer * config_.num_kv_heads + head;
  in.position = positions_[static_cast<size_t>(row)];
  in.forced_cr = knobs_.forced_cr;
  return policy_.decide(in);
}

// From projected rows [q | k | v] to what the cache takes: decisions made, the decision channel
// zeroed, queries rotated.
void Decoder::split_heads(int layer) {
  const int64_t d = config_.head_dim, H = config_.num_heads, K = config_.num_kv_heads;
  const int64_t width = (H + 2 * K) * d;
  q_.resize(static_cast<size_t>(rows_ * H * d));
  k_.resize(static_cast<size_t>(rows_ * K * d));
  v_.resize(k_.size());
  merge_.resize(static_cast<size_t>(rows_ * K));
  importance_.resize(merge_.size());
  const kernels::RopeTable* const rope = cache_.config().rope;
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  each_row(rows_, [&](int64_t row) {
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
      const policy::Decision decision = decide(layer, row, head);
      merge_[static_cast<size_t>(row * K + head)] = decision.merge;
      importance_[static_cast<size_t>(row * K + head)] = decision.importance;
    }
    if (config_.has_decision_channel()) {  // whatever the policy: attention was trained without it
      for (int64_t h = 0; h < H + K; ++h) from[h * d + d - 1] = 0.0f;
    }
    float* const q = &q_[static_cast<size_t>(row * H * d)];
    for (int64_t h = 0; h < H; ++h) {
      if (rope == nullptr) {
        std::copy_n(from + h * d, d, q + h * d);
      } else {
        kernels::rotate(from + h * d, q + h * d, d, rope->cos_at(at), rope->sin_at(at));
      }
    }
    std::copy_n(from + H * d, K * d, &k_[static_cast<size_t>(row * K * d)]);
    std::copy_n(from + (H + K) * d, K * d, &v_[static_cast<size_t>(row * K * d)]);
  });
}

void Decoder::attention(int layer, const Batch& batch) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  projected_.resize(static_cast<size_t>(rows_ * w.qkv.weights.outputs()));
  w.qkv.apply(normed_.data(), rows_, projected_.data());
  if (w.adapter) apply_adapter(w);
  split_heads(layer);
  mixed_.resize(q_.size());
  const cache::LayerTokens tokens{rows_,         q_.data(),          k_.data(),    v_.data(),
                                  merge_.data(), importance_.data(), mixed_.data()};
  if (batch.decode) {
    cache_.decode(batch.sequences, layer, tokens);
  } else {
    cache_.prefill(batch.sequences[0], layer, tokens);
  }
  projected_.resize(x_.size());
  w.o.apply(mixed_.data(), rows_, projected_.data());
  add(x_, projected_);
}

void Decoder::mlp(int layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t wide = w.up.weights.outputs(), width = w.down.weights.inputs();
  projected_.resize(static_cast<size_t>(rows_ * wide));
  inner_.resize(static_cast<size_t>(rows_ * width));
  w.up.apply(normed_.data(), rows_, projected_.data());
  each_row(rows_, [&](int64_t row) {
    activate(config_.activation, &projected_[static_cast<size_t>(row * wide)], width,
             &inner_[static_cast<size_t>(row * width)]);
  });
  projected_.resize(x_.size());
  w.down.apply(inner_.data(), rows_, projected_.data());
  add(x_, projected_);
}

std::span<const float> Decoder::hidden(const Batch& batch) {
  rows_ = static_cast<int64_t>(batch.tokens.size());
  for (int32_t token : batch.tokens) DMC_CHECK(token >= 0 && token < config_.vocab_size);
  find_positions(batch);
  set_biases(batch);
  embed(batch);
  for (int layer = 0; layer < static_cast<int>(config_.num_layers); ++layer) {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
    if (config_.post_norm) {
      normed_ = x_;
      attention(layer, batch);
      norm_rows(w.attention_norm, x_, rows_, x_);
      normed_ = x_;
      mlp(layer);
      norm_rows(w.mlp_norm, x_, rows_, x_);
    } else {
      norm_rows(w.attention_norm, x_, rows_, normed_);
      attention(layer, batch);
      norm_rows(w.mlp_norm, x_, rows_, normed_);
      mlp(layer);
    }
  }
  if (weights_.final_norm.present()) norm_rows(weights_.final_norm, x_, rows_, x_);
  return x_;
}

std::vector<float> Decoder::logits(const float* hidden, int64_t rows) const {
  const int64_t D = config_.hidden_size;
  std::vector<float> transformed;
  if (weights_.head_transform) {
    transformed.resize(static_cast<size_t>(rows * D));
    weights_.head_transform->apply(hidden, rows, transformed.data());
    for (int64_t row = 0; row < rows; ++row) {
      float* const x = &transformed[static_cast<size_t>(row * D)];
      activate(config_.activation, x, D, x);
      norm_row(weights_.head_norm, x, D, x);
    }
    hidden = transformed.data();
  }
  std::vector<float> logits(static_cast<size_t>(rows * config_.vocab_size));
  kernels::linear(*weights_.head, weights_.head_bias.empty() ? nullptr : weights_.head_bias.data(),
                  hidden, rows, logits.data());
  return logits;
}

}  // namespace dmc::runtime

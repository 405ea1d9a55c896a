#include "runtime/device/device_decoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "policy/forced.h"
#include "runtime/positions.h"

namespace dmc::runtime {
namespace {

namespace gpu = kernels::cuda;

constexpr int64_t kLogitRows = 64;  // at least: of a text that is scored

// Whether the policy takes its decisions from the model.
bool decides(const PolicyChoice& choice) {
  if (choice.mass_term) {
    throw invalid_argument("mass_term", "the GPU's attention has no such term; run on the CPU");
  }
  return choice.policy.needs_dmc_config;
}

std::vector<double> opening_shares(const model::ModelConfig& config, double cr) {
  std::vector<double> shares;
  for (int64_t stream = 0; stream < config.num_layers * config.num_kv_heads; ++stream) {
    shares.push_back(policy::forced_opening_share(stream, cr));
  }
  return shares;
}

gpu::Activation device_activation(model::Activation kind) {
  switch (kind) {
    case model::Activation::kSiluGated:
      return gpu::Activation::kSiluGated;
    case model::Activation::kGelu:
      return gpu::Activation::kGelu;
    default:
      return gpu::Activation::kGeluTanh;
  }
}

gpu::DecisionChannel channel_of(const model::ModelConfig& config) {
  if (config.has_query_channel()) return gpu::DecisionChannel::kFirstQueries;
  return config.has_decision_channel() ? gpu::DecisionChannel::kQueriesAndKeys
                                       : gpu::DecisionChannel::kNone;
}

gpu::Numbers f32_numbers(const Buffer<float>& buffer) {
  return {reinterpret_cast<std::byte*>(buffer.get()), DType::kF32};
}

}  // namespace

DeviceDecoder::DeviceDecoder(gpu::Device& device, const model::ModelConfig& config,
                             const DeviceWeights& weights, const PolicyChoice& choice,
                             SequenceTable& table, const DeviceDecoderLimits& limits)
    : device_(device),
      config_(config),
      weights_(weights),
      table_(table),
      decides_(decides(choice)),
      bias_(static_cast<float>(choice.knobs.bias)),
      held_cr_(choice.knobs.held_cr),
      activation_(device_activation(config.activation)),
      scale_(1.0f / std::sqrt(static_cast<float>(config.head_dim))),
      shape_{table.shape().slot_type, static_cast<int>(config.head_dim),
             static_cast<int>(config.group_size())},
      eviction_{choice.policy.evict, {choice.budget, choice.budget_cr}, choice.policy.layer_wide} {
  if (const auto rope = make_rope(config, limits.max_positions)) {
    cos_ = Buffer<float>(device, std::span(rope->cos));
    sin_ = Buffer<float>(device, std::span(rope->sin));
  }
  if (choice.policy.name == "forced") {
    const std::vector<double> shares = opening_shares(config, choice.knobs.forced_cr);
    opening_shares_ = Buffer<double>(device, std::span(shares));
  }
  if (held_cr_ > 0.0) biases_ = Buffer<float>(device, limits.batch);
  const int64_t rows = std::max<int64_t>(limits.chunk, limits.batch), D = config.hidden_size;
  const int64_t logit_rows = std::max<int64_t>(kLogitRows, limits.batch);
  const int64_t queries = rows * config.num_heads * config.head_dim;
  const int64_t scalars = rows * config.num_kv_heads, pairs = scalars * config.head_dim;
  const int64_t wide = std::max(queries + 2 * pairs, rows * 2 * config.intermediate_size);
  rows_ = Buffer<int32_t>(device, limits.batch);
  tokens_ = Buffer<int32_t>(device, rows);
  positions_ = Buffer<int32_t>(device, rows);
  sampling_ = Buffer<gpu::SamplingRow>(device, limits.batch);
  x_ = Buffer<float>(device, rows * D);
  delta_ = Buffer<float>(device, std::max(rows, logit_rows) * D);
  for (Buffer<float>* buffer : {&q_, &mixed_}) *buffer = Buffer<float>(device, queries);
  for (Buffer<float>* buffer : {&k_, &v_, &own_key_, &own_value_}) {
    *buffer = Buffer<float>(device, pairs);
  }
  projected_ = Buffer<float>(device, wide);
  normed_ = allocate_numbers(rows * D);
  inner_ = allocate_numbers(rows * config.intermediate_size);
  if (weights.type != DType::kF32) rounded_ = allocate_numbers(std::max(queries, logit_rows * D));
  if (config.has_adapter()) {
    adapter_input_ = Buffer<float>(device, rows * D);
    adapted_ = Buffer<float>(device, rows * config.adapter_outputs());
  }
  merge_ = Buffer<uint8_t>(device, scalars);
  importance_ = Buffer<float>(device, scalars);
  visible_ = Buffer<int32_t>(device, scalars);
  logits_ = Buffer<float>(device, logit_rows * config.vocab_size);
  if (weights.head_transform.matrix.outputs > 0) {
    transformed_ = Buffer<float>(device, logit_rows * D);
  }

  if (table.shape().delay >= 0) passing_ = PassingBuffers(device, table, limits.chunk);
  if (table.shape().observes > 0) prompt_end_ = PromptEndBuffers(device, table.shape());
  if (policy::uses_attention(eviction_.rule)) {
    const gpu::CacheView cache = table.view();
    eviction_scores_ =
        Buffer<float>(device, limits.batch * config.num_kv_heads *
                                  cache.streams.stats_capacity(cache.pool.page_slots));
  }
  workspace_ = {nullptr,
                static_cast<int>(config.num_layers),
                limits.batch * static_cast<int>(config.num_kv_heads),
                device.decode_workers(shape_),
                shape_.head_dim,
                shape_.group};
  workspace_memory_ = Buffer<std::byte>(device, workspace_.bytes());
  workspace_.memory = workspace_memory_.get();
}

Buffer<std::byte> DeviceDecoder::allocate_numbers(int64_t count) {
  return {device_, count * static_cast<int64_t>(dtype_size(weights_.type))};
}

gpu::Numbers DeviceDecoder::numbers(Buffer<std::byte>& buffer) const {
  return {buffer.get(), weights_.type};
}

// x as the products take it.
gpu::Numbers DeviceDecoder::rounded(const float* x, int64_t count) {
  if (weights_.type == DType::kF32) {
    return {reinterpret_cast<std::byte*>(const_cast<float*>(x)), DType::kF32};
  }
  device_.round(x, count, numbers(rounded_));
  return numbers(rounded_);
}

gpu::NormSpec DeviceDecoder::norm_spec(const DeviceNorm& norm) const {
  return {static_cast<int>(config_.hidden_size), config_.norm == model::NormKind::kLayer,
          static_cast<float>(config_.norm_eps), norm.weight.get(), norm.bias.get()};
}

const DeviceNorm& DeviceDecoder::norm_at(NormAt at, int layer) const {
  const DeviceLayer& w = weights_.layers[static_cast<size_t>(layer)];
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

void DeviceDecoder::norm(NormAt at, int layer, bool adds_delta, bool replaces_x, int64_t rows) {
  const gpu::NormSpec spec = norm_spec(norm_at(at, layer));
  const float* const added = adds_delta ? delta_.get() : nullptr;
  device_.add_and_norm(spec, x_.get(), added, rows,
                       replaces_x ? f32_numbers(x_) : numbers(normed_));
  if (replaces_x) device_.round(x_.get(), rows * config_.hidden_size, numbers(normed_));
}

void DeviceDecoder::multiply(const DeviceLinear& linear, const gpu::Numbers& x, int64_t rows,
                             float* y) {
  device_.linear(linear.matrix.view(), linear.bias.get(), x, rows, y);
}

void DeviceDecoder::multiply(Product product, int layer, int64_t rows) {
  const DeviceLayer& w = weights_.layers[static_cast<size_t>(layer)];
  switch (product) {
    case Product::kQkv:
      return multiply(w.qkv, numbers(normed_), rows, projected_.get());
    case Product::kOutput:
      return multiply(w.o, rounded(mixed_.get(), rows * w.o.matrix.inputs), rows, delta_.get());
    case Product::kUp:
      return multiply(w.up, numbers(normed_), rows, projected_.get());
    case Product::kDown:
      return multiply(w.down, numbers(inner_), rows, delta_.get());
  }
}

void DeviceDecoder::activate(int64_t rows) {
  device_.activate(activation_, projected_.get(), rows, config_.intermediate_size, numbers(inner_));
}

void DeviceDecoder::apply_adapter(int layer, int64_t rows) {
  const DeviceLayer& w = weights_.layers[static_cast<size_t>(layer)];
  gpu::NormSpec spec = norm_spec(w.adapter_norm);
  spec.centred = false;  // in every family
  device_.add_and_norm(spec, x_.get(), nullptr, rows, f32_numbers(adapter_input_));
  multiply(w.adapter, f32_numbers(adapter_input_), rows, adapted_.get());
}

void DeviceDecoder::split_heads(int layer, int64_t rows) {
  const DeviceLayer& w = weights_.layers[static_cast<size_t>(layer)];
  gpu::HeadsSpec spec{static_cast<int>(config_.num_kv_heads),
                      shape_.group,
                      shape_.head_dim,
                      channel_of(config_),
                      decides_,
                      config_.dmc ? config_.dmc->constants() : policy::LearnedConstants{},
                      w.q_norm.weight.get(),
                      w.k_norm.weight.get(),
                      static_cast<float>(config_.norm_eps)};
  spec.bias = bias_;
  spec.biases = biases_.get();
  spec.bias_stride = bias_stride_;
  spec.first_stream = layer * config_.num_kv_heads;
  if (opening_shares_.size() > 0) {
    spec.opening_shares = opening_shares_.get() + spec.first_stream;
  }
  gpu::HeadsRows<float> io{projected_.get(), positions_.get(), cos_.get(),
                           sin_.get(),       q_.get(),         k_.get(),
                           v_.get(),         merge_.get(),     importance_.get()};
  if (config_.has_adapter()) {
    io.said = adapted_.get();
    io.said_width = static_cast<int>(config_.adapter_outputs());
  }
  device_.split_heads(spec, io, rows);
}

void DeviceDecoder::embed(int64_t rows) {
  device_.embed(weights_.embedding.view(), {weights_.positions.get(), weights_.token_type.get()},
                tokens_.get(), positions_.get(), rows, x_.get());
}

gpu::Batch DeviceDecoder::batch_of(int batch) const {
  return {rows_.get(), batch, static_cast<int>(config_.num_kv_heads), table_.shape().rows};
}

void DeviceDecoder::set_biases(const gpu::Batch& batch) {
  if (held_cr_ == 0.0) return;
  const gpu::HoldingSpec spec{static_cast<int>(config_.num_layers), held_cr_, bias_};
  // A row's first position is the number of tokens that its sequence has seen.
  device_.hold_ratio(spec, table_.view(), batch, positions_.get(), biases_.get());
}

int64_t DeviceDecoder::first_stream(int layer, int row) const {
  return (int64_t{layer} * table_.shape().rows + row) * config_.num_kv_heads;
}

// A slot that goes may leave a page, and a token may need one: pages come back after each.
void DeviceDecoder::attend_prompt_in_steps(int layer, int tokens) {
  const gpu::Batch one = batch_of(1);
  for (int t = 0; t < tokens; ++t) {
    device_.collect_pages(table_.view().stack);
    device_.plan_decode(table_.view(), one, workspace_);
    attend_step(layer, one, t);
  }
}

void DeviceDecoder::attend_prompt(int layer, int tokens) {
  if (table_.view().streams.evicts()) return attend_prompt_in_steps(layer, tokens);
  const gpu::PromptChunk chunk{tokens,          static_cast<int>(config_.num_kv_heads),
                               shape_.head_dim, first_stream(layer, 0),
                               rows_.get(),     positions_.get(),
                               k_.get(),        v_.get(),
                               merge_.get(),    importance_.get(),
                               cos_.get(),      sin_.get(),
                               own_key_.get(),  own_value_.get(),
                               visible_.get(),  passing_.view(table_.view().pool)};
  device_.take_prompt(shape_, table_.view(), chunk);
  device_.prefill_attention(shape_, table_.view(), chunk, q_.get(), scale_, mixed_.get());
  if (table_.shape().observes > 0) device_.remember_queries(table_.view(), chunk, q_.get());
}

void DeviceDecoder::end_prompt(int row, int64_t length) {
  if (table_.shape().observes == 0) return;
  for (int layer = 0; layer < static_cast<int>(config_.num_layers); ++layer) {
    device_.keep_of_prompt(
        shape_.slot_type, table_.view(),
        {first_stream(layer, row), static_cast<int>(config_.num_kv_heads), shape_.head_dim,
         shape_.group, scale_, static_cast<int32_t>(eviction_.budget.at(length)),
         table_.shape().max_positions, prompt_end_.scores.get(), prompt_end_.weights.get(),
         prompt_end_.attention.get(), prompt_end_.pooled.get(), prompt_end_.kept.get()});
  }
}

void DeviceDecoder::set_prompt(int row, int64_t position, std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  DMC_CHECK(count <= tokens_.size());
  for (int32_t token : tokens) DMC_CHECK(token >= 0 && token < config_.vocab_size);
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < positions.size(); ++i) {
    positions[i] = static_cast<int32_t>(position + static_cast<int64_t>(i));
  }
  tokens_.upload(tokens);
  positions_.upload(positions);
  rows_.upload(std::array{row});
}

void DeviceDecoder::prefill(int64_t tokens) {
  device_.collect_pages(table_.view().stack);
  set_biases(batch_of(1));
  bias_stride_ = 0;
  run_layers(*this, config_, tokens,
             [&](int layer) { attend_prompt(layer, static_cast<int>(tokens)); });
}

void DeviceDecoder::set_step(const StepInput& input) {
  rows_.upload(input.rows);
  tokens_.upload(input.tokens);
  positions_.upload(input.positions);
  sampling_.upload(input.sampling);
}

void DeviceDecoder::attend_step(int layer, const gpu::Batch& batch, int64_t first) {
  const int64_t scalars = first * config_.num_kv_heads, pairs = scalars * shape_.head_dim;
  const gpu::StepTokens tokens{k_.get() + pairs, v_.get() + pairs, merge_.get() + scalars,
                               importance_.get() + scalars, positions_.get() + first};
  const float* const q = q_.get() + pairs * shape_.group;
  device_.take_tokens(shape_, table_.view(), batch, layer, tokens, {cos_.get(), sin_.get()});
  device_.decode_attention(shape_, table_.view(), batch, layer, q, scale_,
                           mixed_.get() + pairs * shape_.group, workspace_);
  if (!table_.view().streams.evicts()) return;
  device_.evict_slots(shape_, table_.view(), batch, layer,
                      {eviction_, q, scale_, tokens.positions, eviction_scores_.get()});
}

void DeviceDecoder::step(int batch) {
  const gpu::Batch of = batch_of(batch);
  device_.collect_pages(table_.view().stack);
  device_.plan_decode(table_.view(), of, workspace_);
  set_biases(of);
  bias_stride_ = 1;
  run_layers(*this, config_, batch, [&](int layer) { attend_step(layer, of, 0); });
  logits(0, batch);
  device_.choose_tokens(logits_.get(), batch, static_cast<int32_t>(config_.vocab_size),
                        {rows_.get(), tokens_.get(), positions_.get(), sampling_.get()});
}

const float* DeviceDecoder::logits(int64_t first, int64_t count) {
  DMC_CHECK(count <= logit_rows());
  const int64_t D = config_.hidden_size;
  gpu::Numbers hidden = numbers(normed_).from(first * D);
  if (transformed_.size() > 0) {
    multiply(weights_.head_transform, hidden, count, delta_.get());
    device_.activate(activation_, delta_.get(), count, D, f32_numbers(transformed_));
    device_.add_and_norm(norm_spec(weights_.head_norm), transformed_.get(), nullptr, count,
                         f32_numbers(transformed_));
    hidden = rounded(transformed_.get(), count * D);
  }
  device_.linear(weights_.head_view(), weights_.head.bias.get(), hidden, count, logits_.get());
  return logits_.get();
}

}  // namespace dmc::runtime

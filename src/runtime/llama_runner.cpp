#include "runtime/llama_runner.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "base/error.h"

namespace dmc::runtime {
namespace {

const policy::Policy& choose_policy(const io::ModelConfig& config, const std::string& wanted) {
  const std::string name = wanted.empty() ? (config.dmc ? "dmc" : "dense") : wanted;
  const policy::Policy* policy = policy::find_policy(name);
  if (policy == nullptr) {
    std::string names;
    for (const policy::Policy& p : policy::policies()) {
      names += (names.empty() ? "" : ", ") + std::string(p.name);
    }
    throw usage_error("--policy: \"" + name + "\" is not one of " + names);
  }
  if (policy->needs_dmc_config && !config.dmc) {
    throw usage_error("--policy: " + name +
                      " needs a retrofitted model, and this one's config.json has no dmc_config; "
                      "run `dmc retrofit` on it first");
  }
  return *policy;
}

cache::CacheConfig cache_config(const io::ModelConfig& config, const kernels::RopeTable& rope) {
  cache::CacheConfig result;
  result.layers = static_cast<int>(config.num_layers);
  result.kv_heads = static_cast<int>(config.num_kv_heads);
  result.query_heads = static_cast<int>(config.num_heads);
  result.head_dim = static_cast<int>(config.head_dim);
  result.window = config.dmc ? static_cast<int>(config.dmc->window) : 1;
  result.rope = &rope;
  return result;
}

at::Tensor to_tokens(std::span<const int32_t> ids, at::IntArrayRef shape) {
  const at::Tensor tokens = at::empty(shape, at::kLong);
  std::copy(ids.begin(), ids.end(), tokens.mutable_data_ptr<int64_t>());
  return tokens;
}

std::vector<float> to_vector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  const float* data = flat.const_data_ptr<float>();
  return {data, data + flat.numel()};
}

// LibTorch's exceptions carry its source lines; a user gets one sentence.
template <class Fn>
auto guarded(Fn&& fn) {
  try {
    const c10::InferenceMode inference;
    return fn();
  } catch (const c10::Error& error) {
    throw internal_error(std::string("LibTorch: ") + error.what_without_backtrace());
  }
}

}  // namespace

LlamaRunner::LlamaRunner(std::shared_ptr<const models::Llama> model, const RunnerOptions& options)
    : model_(std::move(model)),
      policy_(choose_policy(model_->config(), options.policy)),
      chunk_(std::max<int64_t>(1, options.chunk)),
      rope_(options.max_positions > 0 ? options.max_positions : model_->config().max_positions,
            model_->config().head_dim, model_->config().rope_theta),
      cache_(cache_config(model_->config(), rope_)),
      attention_(model_->config(), policy_, cache_) {}

at::Tensor LlamaRunner::prefill_hidden(engine::SequenceId sequence,
                                       std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (cache_.length(sequence) + count > max_positions()) {
    throw usage_error("the text has at least " + std::to_string(cache_.length(sequence) + count) +
                      " tokens, the model's context is " + std::to_string(max_positions()));
  }
  return guarded([&] {
    attention_.begin_prefill(sequence);
    const at::Tensor hidden = model_->hidden(to_tokens(tokens, {1, count}), attention_);
    cache_.advance(sequence, count);
    return hidden.squeeze(0);
  });
}

std::vector<float> LlamaRunner::prefill(engine::SequenceId sequence,
                                        std::span<const int32_t> tokens) {
  DMC_CHECK(!tokens.empty());
  at::Tensor hidden;
  while (!tokens.empty()) {
    const auto count = std::min(tokens.size(), static_cast<size_t>(chunk_));
    hidden = prefill_hidden(sequence, tokens.first(count));
    tokens = tokens.subspan(count);
  }
  return guarded([&] { return to_vector(model_->logits(hidden[-1])); });
}

std::vector<float> LlamaRunner::prefill_logits(engine::SequenceId sequence,
                                               std::span<const int32_t> tokens) {
  std::vector<float> logits;
  logits.reserve(tokens.size() * static_cast<size_t>(vocab_size()));
  while (!tokens.empty()) {
    const auto count = std::min(tokens.size(), static_cast<size_t>(chunk_));
    const at::Tensor hidden = prefill_hidden(sequence, tokens.first(count));
    const std::vector<float> rows = guarded([&] { return to_vector(model_->logits(hidden)); });
    logits.insert(logits.end(), rows.begin(), rows.end());
    tokens = tokens.subspan(count);
  }
  return logits;
}

double LlamaRunner::compression_ratio(engine::SequenceId sequence) const {
  const cache::CacheConfig& config = cache_.config();
  const int64_t kept = cache_.slots(sequence);
  if (kept == 0) return 1.0;
  return static_cast<double>(cache_.length(sequence) * config.layers * config.kv_heads) /
         static_cast<double>(kept);
}

std::vector<float> LlamaRunner::decode(std::span<const engine::SequenceId> sequences,
                                       std::span<const int32_t> tokens) {
  DMC_CHECK(sequences.size() == tokens.size());
  for (engine::SequenceId sequence : sequences) {
    DMC_CHECK(cache_.length(sequence) < max_positions());
  }
  return guarded([&] {
    const auto count = static_cast<int64_t>(tokens.size());
    attention_.begin_decode(sequences);
    const at::Tensor hidden = model_->hidden(to_tokens(tokens, {count, 1}), attention_);
    for (engine::SequenceId sequence : sequences) cache_.advance(sequence, 1);
    return to_vector(model_->logits(hidden.squeeze(1)));
  });
}

}  // namespace dmc::runtime

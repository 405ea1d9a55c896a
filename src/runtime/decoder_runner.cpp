#include "runtime/decoder_runner.h"

#include <algorithm>

#include "base/error.h"
#include "families/rope_frequencies.h"

namespace dmc::runtime {
namespace {

int64_t choose_positions(const io::ModelConfig& config, int64_t wanted) {
  if (wanted <= 0) return config.context();
  if (config.learned_positions && wanted > config.max_positions) {
    throw usage_error("a context of " + std::to_string(wanted) +
                      " tokens was asked for, the model has learned " +
                      std::to_string(config.max_positions) + " positions and cannot go beyond");
  }
  return wanted;
}

std::unique_ptr<const kernels::RopeTable> make_rope(const io::ModelConfig& config,
                                                    int64_t positions) {
  if (!config.rope) return nullptr;
  auto table = std::make_unique<kernels::RopeTable>(positions, families::rope_frequencies(config));
  if (config.dmc && config.dmc->zero_after_rope) table->keep_last_zero();
  return table;
}

// Tokens of a prompt taken in at once. While a ratio is held the bias is looked at anew for every
// few tokens.
int64_t choose_chunk(const PolicyChoice& choice, int64_t wanted) {
  constexpr int64_t kHoldingChunk = 16;
  return std::max<int64_t>(1,
                           choice.knobs.held_cr > 0.0 ? std::min(wanted, kHoldingChunk) : wanted);
}

cache::CacheConfig cache_config(const io::ModelConfig& config, const PolicyChoice& choice,
                                DType slot_type, const kernels::RopeTable* rope) {
  cache::CacheConfig result;
  result.layers = static_cast<int>(config.num_layers);
  result.kv_heads = static_cast<int>(config.num_kv_heads);
  result.query_heads = static_cast<int>(config.num_heads);
  result.head_dim = static_cast<int>(config.head_dim);
  result.window = config.dmc ? static_cast<int>(config.dmc->pooled_tokens()) : 1;
  result.slot_type = slot_type;
  result.rope = rope;
  result.policy = &choice.policy;
  result.budget = choice.budget;
  result.cr = choice.budget_cr;
  result.mass_term = choice.mass_term;
  result.delay = config.dmc ? config.dmc->window : 0;
  return result;
}

}  // namespace

DecoderRunner::DecoderRunner(std::shared_ptr<const Model> model, const RunnerOptions& options)
    : model_(std::move(model)),
      choice_(choose_policy(model_->config, options.compression)),
      chunk_(choose_chunk(choice_, options.chunk)),
      max_positions_(choose_positions(model_->config, options.max_positions)),
      rope_(make_rope(model_->config, max_positions_)),
      cache_(cache_config(model_->config, choice_, options.kv, rope_.get())),
      decoder_(*model_, choice_.policy, choice_.knobs, cache_) {}

std::vector<std::span<const int32_t>> DecoderRunner::chunks(std::span<const int32_t> tokens) const {
  std::vector<std::span<const int32_t>> result;
  for (; !tokens.empty(); tokens = tokens.subspan(result.back().size())) {
    result.push_back(tokens.first(std::min(tokens.size(), static_cast<size_t>(chunk_))));
  }
  return result;
}

std::span<const float> DecoderRunner::prefill_hidden(engine::SequenceId sequence,
                                                     std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (cache_.length(sequence) + count > max_positions()) {
    throw usage_error("the text has at least " + std::to_string(cache_.length(sequence) + count) +
                      " tokens, the model's context is " + std::to_string(max_positions()));
  }
  const std::span<const float> hidden = decoder_.hidden({{&sequence, 1}, tokens, false});
  cache_.advance(sequence, count);
  return hidden;
}

std::vector<float> DecoderRunner::prefill(engine::SequenceId sequence,
                                          std::span<const int32_t> tokens) {
  DMC_CHECK(!tokens.empty());
  std::span<const float> hidden;
  for (const auto chunk : chunks(tokens)) hidden = prefill_hidden(sequence, chunk);
  cache_.end_prompt(sequence);
  return decoder_.logits(hidden.last(static_cast<size_t>(model_->config.hidden_size)).data(), 1);
}

std::vector<float> DecoderRunner::prefill_logits(engine::SequenceId sequence,
                                                 std::span<const int32_t> tokens) {
  std::vector<float> logits;
  logits.reserve(tokens.size() * static_cast<size_t>(vocab_size()));
  for (const auto chunk : chunks(tokens)) {
    const std::span<const float> hidden = prefill_hidden(sequence, chunk);
    const auto rows = decoder_.logits(hidden.data(), static_cast<int64_t>(chunk.size()));
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  return logits;
}

std::vector<float> DecoderRunner::decode(std::span<const engine::SequenceId> sequences,
                                         std::span<const int32_t> tokens) {
  DMC_CHECK(sequences.size() == tokens.size());
  for (engine::SequenceId sequence : sequences) {
    DMC_CHECK(cache_.length(sequence) < max_positions());
  }
  const std::span<const float> hidden = decoder_.hidden({sequences, tokens, true});
  for (engine::SequenceId sequence : sequences) cache_.advance(sequence, 1);
  return decoder_.logits(hidden.data(), static_cast<int64_t>(tokens.size()));
}

double DecoderRunner::compression_ratio(engine::SequenceId sequence) const {
  const cache::CacheConfig& config = cache_.config();
  const int64_t kept = cache_.slots(sequence);
  if (kept == 0) return 1.0;
  return static_cast<double>(cache_.length(sequence) * config.layers * config.kv_heads) /
         static_cast<double>(kept);
}

}  // namespace dmc::runtime

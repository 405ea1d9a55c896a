#include "runtime/decoder_runner.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/positions.h"

namespace dmc::runtime {
namespace {

cache::CacheConfig cache_config(const model::ModelConfig& config, const PolicyChoice& choice,
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
      chunk_(prompt_chunk(choice_, options.chunk)),
      max_positions_(choose_positions(model_->config, options.max_positions)),
      rope_(make_rope(model_->config, max_positions_)),
      cache_(cache_config(model_->config, choice_, options.kv, rope_.get())),
      decoder_(*model_, choice_.policy, choice_.knobs, cache_) {}

std::span<const float> DecoderRunner::prefill_hidden(engine::SequenceId sequence,
                                                     std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  require_room(cache_.length(sequence) + count);
  const std::span<const float> hidden = decoder_.hidden({{&sequence, 1}, tokens, false});
  cache_.advance(sequence, count);
  return hidden;
}

std::vector<float> DecoderRunner::prefill(engine::SequenceId sequence,
                                          std::span<const int32_t> tokens) {
  DMC_CHECK(!tokens.empty());
  std::span<const float> hidden;
  for (const auto chunk : chunks_of(tokens, chunk_)) hidden = prefill_hidden(sequence, chunk);
  cache_.end_prompt(sequence);
  return decoder_.logits(hidden.last(static_cast<size_t>(model_->config.hidden_size)).data(), 1);
}

std::vector<float> DecoderRunner::prefill_logits(engine::SequenceId sequence,
                                                 std::span<const int32_t> tokens) {
  std::vector<float> logits;
  logits.reserve(tokens.size() * static_cast<size_t>(vocab_size()));
  for (const auto chunk : chunks_of(tokens, chunk_)) {
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

std::vector<int64_t> DecoderRunner::slots(engine::SequenceId sequence) const {
  const cache::CacheConfig& config = cache_.config();
  std::vector<int64_t> slots;
  for (int layer = 0; layer < config.layers; ++layer) {
    for (int head = 0; head < config.kv_heads; ++head) {
      slots.push_back(cache_.slots(sequence, layer, head));
    }
  }
  return slots;
}

}  // namespace dmc::runtime

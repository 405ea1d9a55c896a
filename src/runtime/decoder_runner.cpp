#include "runtime/decoder_runner.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/positions.h"

namespace dmc::runtime {
namespace {

cache::CacheConfig cache_config(const Model& model, const PolicyChoice& choice,
                                const RunnerOptions& options, const kernels::RopeTable* rope) {
  const model::ModelConfig config = model::config_of_shard(model.config, model.shard());
  cache::CacheConfig result;
  result.layers = static_cast<int>(config.num_layers);
  result.kv_heads = static_cast<int>(config.num_kv_heads);
  result.query_heads = static_cast<int>(config.num_heads);
  result.head_dim = static_cast<int>(config.head_dim);
  result.window = config.dmc ? static_cast<int>(config.dmc->window) : 1;
  result.slot_type = options.kv;
  result.max_pages = options.max_pages;
  result.rope = rope;
  result.policy = &choice.policy;
  result.budget = choice.budget;
  result.cr = choice.budget_cr;
  result.mass_term = choice.mass_term;
  if (choice.policy.delayed) result.delay = config.dmc->delay;
  result.newest_weighs_one = choice.policy.carry == policy::Carry::kBesideNewest;
  return result;
}

}  // namespace

DecoderRunner::DecoderRunner(std::shared_ptr<const Model> model, const RunnerOptions& options,
                             comm::Group& group)
    : model_(std::move(model)),
      choice_(choose_policy(model_->config, options.compression)),
      chunk_(prompt_chunk(choice_, options.chunk)),
      max_positions_(choose_positions(model_->config, options.max_positions)),
      rope_(make_rope(model_->config, max_positions_)),
      cache_(cache_config(*model_, choice_, options, rope_.get())),
      decoder_(*model_, choice_.policy, choice_.knobs, cache_, group, options.cancelled) {
  DMC_CHECK(group.size() == model_->ranks && group.rank() == model_->rank);
}

PassLimits DecoderRunner::pass_limits() const {
  constexpr int64_t kRows = 1024;
  return {chunk_, kRows};
}

void DecoderRunner::run(const Pass& pass, float* logits) {
  const std::span<const float> hidden = decoder_.hidden(pass);
  const std::vector<LogitRow>& rows = pass.logits;
  if (rows.empty()) return;
  const int64_t width = model_->config.hidden_size, vocab = vocab_size();
  const auto lie_together = [&](int64_t LogitRow::*of) {
    return std::ranges::adjacent_find(rows, [of](const LogitRow& a, const LogitRow& b) {
             return b.*of != a.*of + 1;
           }) == rows.end();
  };
  const float* from = hidden.data() + rows[0].row * width;
  if (!lie_together(&LogitRow::row)) {
    wanted_.clear();
    for (const LogitRow& row : rows) {
      const float* const x = hidden.data() + row.row * width;
      wanted_.insert(wanted_.end(), x, x + width);
    }
    from = wanted_.data();
  }
  if (logits == nullptr) return decoder_.logits(from, std::ssize(rows), nullptr);
  if (lie_together(&LogitRow::to)) {
    return decoder_.logits(from, std::ssize(rows), logits + rows[0].to * vocab);
  }
  logits_.resize(rows.size() * static_cast<size_t>(vocab));
  decoder_.logits(from, std::ssize(rows), logits_.data());
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(logits_.data() + static_cast<int64_t>(i) * vocab, vocab,
                logits + rows[i].to * vocab);
  }
}

std::optional<std::string> DecoderRunner::save(engine::SequenceId sequence) const {
  if (!choice_.policy.shares_prefixes()) return {};
  return cache_.save(sequence);
}

engine::SequenceId DecoderRunner::restore(std::string_view bytes) {
  if (!choice_.policy.shares_prefixes()) return engine::ModelRunner::restore(bytes);
  const engine::SequenceId sequence = cache_.restore(bytes);
  if (cache_.length(sequence) <= max_positions_) return sequence;
  cache_.release(sequence);
  throw data_error("the saved sequence is longer than the model's context");
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

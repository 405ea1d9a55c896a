#include "cache/prefill_chunk.h"

#include <algorithm>

namespace dmc::cache {

PrefillChunk::PrefillChunk(const CacheConfig& config, PagePool& pool, Stream& stream,
                           int64_t position, int head, const LayerTokens& tokens)
    : config_(config),
      pool_(pool),
      stream_(stream),
      position_(position),
      head_(head),
      tokens_(tokens),
      lead_(std::clamp<int64_t>(config.delay - position, 0, tokens.tokens)),
      passing_(pool),
      keys_(static_cast<size_t>(tokens.tokens * config.head_dim)),
      values_(keys_.size()),
      masses_(static_cast<size_t>(tokens.tokens)) {}

JoiningToken PrefillChunk::given(int64_t token) const {
  const int64_t at = row(token), d = config_.head_dim;
  return {tokens_.decisions[at], tokens_.importance[at], position_ + token, tokens_.k + at * d,
          tokens_.v + at * d};
}

// Of the token that joins the slots when `token` comes, which is at or behind lead_.
policy::Decision PrefillChunk::decision_of_joining(int64_t token) const {
  if (config_.delay == 0) return tokens_.decisions[row(token)];
  return passing_.tokens[static_cast<size_t>(token - lead_)].decision;
}

void PrefillChunk::pass_by(int64_t token) {
  const JoiningToken given = this->given(token);
  // Rotated in the room of the pair that the token will have.
  rotate_key(config_, given.key, given.position, key(token));
  passing_.slots.append(pool_, key(token), given.value, 0.0f);
  passing_.tokens.push_back(raw_token(given));
}

void PrefillChunk::begin() {
  if (config_.delay > 0) {
    lift_window(config_, pool_, stream_, position_, passing_);
    for (int64_t t = 0; t < tokens_.tokens; ++t) pass_by(t);
  }
  if (lead_ < tokens_.tokens) before_joining(config_, pool_, stream_, decision_of_joining(lead_));
}

void PrefillChunk::pool() {
  for (int64_t t = 0; t < lead_; ++t) std::copy_n(given(t).value, config_.head_dim, value(t));
  for (int64_t t = lead_; t < tokens_.tokens; ++t) {
    const JoiningToken joining =
        config_.delay == 0 ? given(t)
                           : read_passing(config_, pool_, passing_, t - lead_,
                                          position_ + t - config_.delay, {key(t), value(t)});
    if (joining.decision != policy::Decision::kMerge) stream_.open.clear();
    join(config_, stream_.open, joining);
    std::copy_n(stream_.open.key(), config_.head_dim, key(t));
    std::copy_n(stream_.open.value(), config_.head_dim, value(t));
    masses_[static_cast<size_t>(t)] = stream_.open.mass();
  }
}

void PrefillChunk::set_visible() {
  const int64_t t = std::ssize(visible_), tokens_before = std::min(position_, config_.delay);
  visible_.push_back(stream_.closed.size());
  passing_.from.push_back(std::max<int64_t>(0, t - lead_ + 1));
  passing_.to.push_back(tokens_before + t + (t < lead_ ? 0 : 1));
}

void PrefillChunk::close() {
  for (int64_t t = 0; t < lead_; ++t) set_visible();
  for (int64_t t = lead_; t < tokens_.tokens; ++t) {
    if (t > lead_ && decision_of_joining(t) == policy::Decision::kAppend) {
      stream_.closed.append(pool_, key(t - 1), value(t - 1), masses_[static_cast<size_t>(t - 1)]);
      if (config_.tells_slots_apart()) {
        stream_.stats.push_back({position_ + t - 1 - config_.delay});
      }
    }
    set_visible();
  }
  if (lead_ < tokens_.tokens) {
    stream_.open_stats = {position_ + tokens_.tokens - 1 - config_.delay};
  }
}

kernels::PrefillItem PrefillChunk::item(int group) const {
  const int64_t offset = static_cast<int64_t>(head_) * group * config_.head_dim;
  kernels::PrefillItem item{stream_.closed.pages().data(),
                            tokens_.tokens,
                            visible_.data(),
                            keys_.data(),
                            values_.data(),
                            tokens_.q + offset,
                            tokens_.out + offset,
                            static_cast<int64_t>(config_.query_heads) * config_.head_dim};
  if (config_.mass_term) item.own_mass = masses_.data();
  if (config_.delay > 0) {
    item.passing = {passing_.slots.pages().data(), passing_.from.data(), passing_.to.data()};
  }
  return item;
}

void PrefillChunk::end() {
  if (config_.delay == 0) return;
  return_window(config_, pool_, stream_, position_ + tokens_.tokens, passing_);
}

}  // namespace dmc::cache

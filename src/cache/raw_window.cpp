#include "cache/raw_window.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace dmc::cache {
namespace {

// Key and value of a slot, the key as it was before rotary.
void read_raw(const CacheConfig& config, const PagePool& pool, const SlotList& slots, int64_t index,
              int64_t position, TokenPair to) {
  slots.read(pool, index, to.key, to.value);
  if (config.rope == nullptr) return;
  kernels::rotate(to.key, to.key, config.head_dim, config.rope->cos_at(position),
                  config.rope->sin_at(position), /*direction=*/-1.0f);
}

}  // namespace

RawToken raw_token(const JoiningToken& token) {
  return {token.position == 0 ? policy::Decision::kAppend : token.decision, token.importance};
}

void rotate_key(const CacheConfig& config, const float* key, int64_t position, float* rotated) {
  if (config.rope == nullptr) {
    std::copy_n(key, config.head_dim, rotated);
  } else {
    kernels::rotate(key, rotated, config.head_dim, config.rope->cos_at(position),
                    config.rope->sin_at(position));
  }
}

void before_joining(const CacheConfig& config, PagePool& pool, Stream& stream,
                    policy::Decision decision) {
  if (stream.open.empty() || decision == policy::Decision::kMerge) return;
  if (decision == policy::Decision::kAppend) {
    stream.closed.append(pool, stream.open.key(), stream.open.value(), stream.open.mass());
    if (config.tells_slots_apart()) stream.stats.push_back(stream.open_stats);
  }
  stream.open.clear();
}

void join(const CacheConfig& config, OpenSlot& open, const JoiningToken& token) {
  open.push(token.importance, token.key, token.value);
  open.pool(token.position, config.rope);
}

JoiningToken read_passing(const CacheConfig& config, const PagePool& pool,
                          const PassingTokens& passing, int64_t index, int64_t position,
                          TokenPair to) {
  read_raw(config, pool, passing.slots, index, position, to);
  const RawToken& token = passing.tokens[static_cast<size_t>(index)];
  return {token.decision, token.importance, position, to.key, to.value};
}

std::optional<JoiningToken> enter_window(const CacheConfig& config, PagePool& pool, Stream& stream,
                                         const JoiningToken& token, const float* rotated_key,
                                         TokenPair left) {
  RawWindow& raw = stream.raw;
  if (token.position < config.delay) {
    stream.closed.append(pool, rotated_key, token.value, 0.0f);
    stream.stats.push_back({token.position});
    raw.tokens.push_back(raw_token(token));
    return std::nullopt;
  }
  const int64_t place = token.position % config.delay, slot = raw.first + place;
  const int64_t position = token.position - config.delay;
  read_raw(config, pool, stream.closed, slot, position, left);
  const RawToken leaving = std::exchange(raw.tokens[static_cast<size_t>(place)], raw_token(token));
  stream.closed.rewrite(pool, slot, rotated_key, token.value, 0.0f);
  stream.stats[static_cast<size_t>(slot)] = {token.position};
  return JoiningToken{leaving.decision, leaving.importance, position, left.key, left.value};
}

int64_t hiding_tokens(const Stream& stream) {
  return std::ranges::count_if(stream.raw.tokens, policy::hides_previous, &RawToken::decision);
}

void check_raw_window(const CacheConfig& config, const Stream& stream, int64_t length) {
  const int64_t count = std::min(length, config.delay);
  DMC_CHECK(std::ssize(stream.raw.tokens) == count);
  DMC_CHECK(stream.raw.first + count <= stream.closed.size());
  for (int64_t position = length - count; position < length; ++position) {
    const int64_t slot = stream.raw.first + position % config.delay;
    DMC_CHECK(stream.stats[static_cast<size_t>(slot)].position == position);
  }
}

void lift_window(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t length,
                 PassingTokens& passing) {
  RawWindow& raw = stream.raw;
  const int64_t count = std::ssize(raw.tokens), end = raw.first + count;
  for (int64_t position = length - count; position < length; ++position) {
    const int64_t place = position % config.delay;
    passing.slots.append_copy(pool, stream.closed, raw.first + place);
    passing.tokens.push_back(raw.tokens[static_cast<size_t>(place)]);
  }
  std::vector<size_t> stays(static_cast<size_t>(stream.closed.size() - count));
  std::iota(stays.begin(), stays.begin() + raw.first, size_t{0});
  std::iota(stays.begin() + raw.first, stays.end(), static_cast<size_t>(end));
  stream.closed.keep(pool, stays);
  stream.stats.erase(stream.stats.begin() + raw.first, stream.stats.begin() + end);
  raw = {};
}

void return_window(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t length,
                   const PassingTokens& passing) {
  const int64_t count = std::min(length, config.delay), oldest = length - count;
  const int64_t first_passing = passing.slots.size() - count;
  stream.raw = {{}, stream.closed.size()};
  for (int64_t place = 0; place < count; ++place) {
    const int64_t after_oldest = (place - oldest % config.delay + config.delay) % config.delay;
    stream.closed.append_copy(pool, passing.slots, first_passing + after_oldest);
    stream.stats.push_back({oldest + after_oldest});
    stream.raw.tokens.push_back(passing.tokens[static_cast<size_t>(first_passing + after_oldest)]);
  }
}

}  // namespace dmc::cache

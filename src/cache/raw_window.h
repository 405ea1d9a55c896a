// Streams with a delay: a token stays raw, as a slot of its own, while it is among the newest
// `CacheConfig::delay`, and joins the stream's other slots when the token so many behind it comes.
// Raw tokens lie among the closed slots, so that attention needs not know of them.
#pragma once

#include <optional>
#include <vector>

#include "cache/kv_cache.h"
#include "cache/stream.h"

namespace dmc::cache {

// A token that joins a stream's slots.
struct JoiningToken {
  policy::Decision decision;
  float importance;
  int64_t position;
  const float *key, *value;  // [head_dim], key before rotary
};

// A token as it lies in a slot and as it is read out of one again, [head_dim] each.
struct TokenPair {
  float *key, *value;
};

// What is remembered of a token until it joins. The first of all appends, whatever it decided.
RawToken raw_token(const JoiningToken& token);
// rotated: [head_dim], key with the position's rotary embedding.
void rotate_key(const CacheConfig& config, const float* key, int64_t position, float* rotated);

// Closes the open slot, if the token appends, or empties it, if it drops what is there.
void before_joining(const CacheConfig& config, PagePool& pool, Stream& stream,
                    policy::Decision decision);
// Takes the token into the open slot.
void join(const CacheConfig& config, OpenSlot& open, const JoiningToken& token);

// Takes a token into the window, in the place of the one that leaves it. That one, if there is one,
// is read into `left`. rotated_key: [head_dim].
std::optional<JoiningToken> enter_window(const CacheConfig& config, PagePool& pool, Stream& stream,
                                         const JoiningToken& token, const float* rotated_key,
                                         TokenPair left);
// Of the raw tokens, those that hide the one before them: slots there are only until they join.
int64_t hiding_tokens(const Stream& stream);

// Throws if the window is not that of a stream that has seen `length` tokens.
void check_raw_window(const CacheConfig& config, const Stream& stream, int64_t length);

// Raw tokens during a one-pass prefill: in the order of their positions, so that what a query sees
// of them is one run.
class PassingTokens {
 public:
  explicit PassingTokens(PagePool& pool) : pool_(pool) {}
  PassingTokens(const PassingTokens&) = delete;
  ~PassingTokens() { slots.clear(pool_); }

  SlotList slots;
  std::vector<RawToken> tokens;   // by slot
  std::vector<int64_t> from, to;  // by query: it sees slots from..to-1

 private:
  PagePool& pool_;
};
// Token `index` of them, which was at `position`, read into `to`.
JoiningToken read_passing(const CacheConfig& config, const PagePool& pool,
                          const PassingTokens& passing, int64_t index, int64_t position,
                          TokenPair to);
// Moves the window of a stream that has seen `length` tokens into `passing`.
void lift_window(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t length,
                 PassingTokens& passing);
// Puts the newest of them back, when the stream has seen `length` tokens.
void return_window(const CacheConfig& config, PagePool& pool, Stream& stream, int64_t length,
                   const PassingTokens& passing);

}  // namespace dmc::cache

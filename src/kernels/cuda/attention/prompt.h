// One-pass compressed prefill: how a chunk of a prompt goes into the streams of a layer. The same
// result as KvCache::prefill and as taking the tokens one by one, but all tokens at once: every
// token's partial mean is a stencil over at most `window` tokens in front of it.
#pragma once

#include <cstdint>

#include "kernels/cuda/cache/take_token.h"

namespace dmc::kernels::cuda {

// Tokens of a prompt that will go (late.h), where the queries that still see them find them: in the
// order of their positions, in pages of a memory of their own.
struct PassingTokens {
  PagePool pool;       // of the cache's format; head h's pages are h * pages and so on
  int32_t pages;       // of a head
  int32_t *from, *to;  // [tokens][kv_heads]: a token sees those of from..to-1
  int32_t* lifted;     // [kv_heads]: how many of them came in with earlier chunks
  int32_t* positions;  // [kv_heads][capacity()]

  DMC_HOST_DEVICE int64_t capacity() const { return int64_t{pages} * pool.page_slots; }
  DMC_HOST_DEVICE std::byte* page(int head, int n) const {
    return pool.memory + (int64_t{head} * pages + n) * pool.page_bytes;
  }
  // How many a token at `row` still sees.
  DMC_HOST_DEVICE int32_t left(int64_t row) const { return to[row] - from[row]; }
};

// A chunk of one sequence's prompt at one layer. Which sequence it is and where its tokens stand is
// read on the device, so that a recorded chunk serves others, too.
struct PromptChunk {
  int tokens, kv_heads, head_dim;
  int64_t layer_stream;      // of the layer's streams the first, which is cache row 0's
  const int32_t* cache_row;  // the sequence's in the cache
  const int32_t* positions;  // [tokens]; only read where keys are rotated or tokens go late
  const float *k, *v;        // [tokens][kv_heads][head_dim], before rotary
  const uint8_t* merge;      // [tokens][kv_heads]
  const float* importance;   // [tokens][kv_heads]
  const float *cos, *sin;    // [positions][head_dim / 2]; null: not rotated
  // Results: every token's partial mean (keys rotated) and how many closed slots it sees.
  float *own_key, *own_value;  // [tokens][kv_heads][head_dim]
  int32_t* visible;            // [tokens][kv_heads]
  PassingTokens passing = {};  // only with a policy that evicts late

  DMC_HOST_DEVICE int64_t row(int token, int head) const {
    return int64_t{token} * kv_heads + head;
  }
  DMC_HOST_DEVICE int64_t stream(int head) const {
    return layer_stream + int64_t{*cache_row} * kv_heads + head;
  }
  // Whether a slot is closed right before the token: that of the segment before it.
  DMC_HOST_DEVICE bool closes(const Streams& streams, int token, int head) const {
    return merge[row(token, head)] == 0 && (token > 0 || streams.open_count[stream(head)] > 0);
  }
  // Whether the token says of the one before it that it will go.
  DMC_HOST_DEVICE bool marks(const Streams& streams, int token, int head) const {
    return merge[row(token, head)] != 0 && (token > 0 || streams.open_count[stream(head)] > 0);
  }
};

// Calls fn(weight, key, value) for the tokens that `token`'s partial mean averages, newest first:
// those of its segment in this chunk, then those that the open slot still holds.
template <class Fn>
DMC_DEVICE void each_in_mean(const Streams& streams, const PromptChunk& chunk, int token, int head,
                             Fn&& fn) {
  const int64_t stream = chunk.stream(head);
  int left = streams.window > 0 ? streams.window : chunk.tokens + 1;
  for (int t = token; t >= 0 && left > 0; --t, --left) {
    const int64_t row = chunk.row(t, head);
    fn(chunk.importance[row], chunk.k + row * chunk.head_dim, chunk.v + row * chunk.head_dim);
    if (chunk.merge[row] == 0) return;
  }
  const int capacity = streams.capacity(), width = 2 * chunk.head_dim;
  const int count = streams.open_count[stream], oldest = streams.open_head[stream];
  for (int n = count - 1; n >= 0 && left > 0; --n, --left) {
    const int place = (oldest + n) % capacity;
    const float* const entry = streams.open_pairs + (stream * (capacity + 1) + 1 + place) * width;
    fn(streams.open_weights[stream * capacity + place], entry, entry + chunk.head_dim);
  }
}

// Computes a token's partial mean.
template <class Team>
DMC_DEVICE void pool_prompt_token(const Streams& streams, const PromptChunk& chunk, int token,
                                  int head) {
  const int dim = chunk.head_dim, half = dim / 2;
  const int64_t at = chunk.row(token, head) * dim;
  const int64_t angle = chunk.cos != nullptr ? int64_t{chunk.positions[token]} * half : 0;
  float total = 0.0f;
  each_in_mean(streams, chunk, token, head,
               [&](float weight, const float*, const float*) { total += weight; });
  for (int i = Team::lane(); i < half; i += Team::size()) {
    float key[2] = {0.0f, 0.0f}, value[2] = {0.0f, 0.0f};
    each_in_mean(streams, chunk, token, head, [&](float weight, const float* k, const float* v) {
      const float share = weight / total;
      key[0] += share * k[i];
      key[1] += share * k[half + i];
      value[0] += share * v[i];
      value[1] += share * v[half + i];
    });
    const float cos = chunk.cos != nullptr ? chunk.cos[angle + i] : 1.0f;
    const float sin = chunk.sin != nullptr ? chunk.sin[angle + i] : 0.0f;
    chunk.own_key[at + i] = key[0] * cos - key[1] * sin;
    chunk.own_key[at + half + i] = key[1] * cos + key[0] * sin;
    chunk.own_value[at + i] = value[0];
    chunk.own_value[at + half + i] = value[1];
  }
}

// Takes the pages that `closing` more slots of a stream need, all or none, and makes its last page
// its own. Returns whether there were enough; all lanes get it.
template <class Team>
DMC_DEVICE bool reserve_pages(const PagePool& pool, const PageStack& stack, const Streams& streams,
                              int64_t stream, int closing) {
  const int P = pool.page_slots;
  const int32_t closed = streams.closed[stream];
  const int have = (closed + P - 1) / P, need = (closed + closing + P - 1) / P - have;
  const bool appends = closing > 0 && closed % P != 0;
  int32_t there = !appends || own_page<Team>(pool, stack, streams, stream, have - 1) ? 1 : 0;
  if (Team::lane() == 0) {
    if (have + need > streams.max_pages) there = 0;
    if (there != 0 && !take_pages<Team>(stack, need, streams.table(stream) + have)) there = 0;
    if (there == 0) Team::add(stack.refused, closing);
  }
  return Team::of_first(there) != 0;
}

// The pair that the token before `token` left: what is closed there.
struct ClosedPair {
  const float *key, *value;
};
DMC_HOST_DEVICE ClosedPair pair_before(const Streams& streams, const PromptChunk& chunk, int token,
                                       int head) {
  const int64_t stream = chunk.stream(head);
  if (token == 0) {
    return {streams.open_key(stream, chunk.head_dim), streams.open_value(stream, chunk.head_dim)};
  }
  const int64_t before = chunk.row(token - 1, head) * chunk.head_dim;
  return {chunk.own_key + before, chunk.own_value + before};
}

// Writes the slot that is closed before `token`, if one is. `visible` and the pages are there.
template <DType kType, class Team>
DMC_DEVICE void write_closed(const PagePool& pool, const Streams& streams, const PromptChunk& chunk,
                             int token, int head) {
  const int slot = chunk.visible[chunk.row(token, head)] - 1;
  if (slot < 0 || !chunk.closes(streams, token, head)) return;
  const ClosedPair pair = pair_before(streams, chunk, token, head);
  write_slot<kType, Team>(pool, streams.table(chunk.stream(head))[slot / pool.page_slots],
                          slot % pool.page_slots, chunk.head_dim, pair.key, pair.value);
}

// Leaves the stream as after the chunk's last token: `closed` slots and the open one.
template <class Team>
DMC_DEVICE void finish_prompt(const Streams& streams, const PromptChunk& chunk, int head) {
  const int64_t stream = chunk.stream(head);
  const int dim = chunk.head_dim, last = chunk.tokens - 1;
  const int reach = streams.window > 0 ? streams.window : chunk.tokens;
  int start = last;  // of the tokens that the ring will hold
  while (start > 0 && chunk.merge[chunk.row(start, head)] != 0 && last - start + 1 < reach) --start;
  // The ring's own entries stay only if the segment reaches back to them.
  const bool anew =
      start > 0 || chunk.merge[chunk.row(0, head)] == 0 || streams.open_count[stream] == 0;
  for (int t = start; t <= last; ++t) {
    const int64_t row = chunk.row(t, head);
    push_entry<Team>(
        streams, stream, dim, anew && t == start,
        {chunk.k + row * dim, chunk.v + row * dim, chunk.importance[row], true, nullptr, nullptr});
  }
  const int64_t own = chunk.row(last, head) * dim;
  float* const pooled = streams.open_pairs + stream * (streams.capacity() + 1) * 2 * dim;
  for (int i = Team::lane(); i < dim; i += Team::size()) {
    pooled[i] = chunk.own_key[own + i];
    pooled[dim + i] = chunk.own_value[own + i];
  }
  if (Team::lane() != 0) return;
  const int32_t seen = chunk.visible[chunk.row(last, head)];
  if (seen > 0) streams.closed[stream] = seen;
}

}  // namespace dmc::kernels::cuda

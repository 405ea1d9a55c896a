// Policies that evict late (Policy::late): a token that was decided against is marked when its slot
// is closed, and the slot is dropped when the token leaves the window. As cache/eviction.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/cache/take_token.h"

namespace dmc::kernels::cuda {

// Copies a slot as it is between pages of one format.
template <DType kType, class Team>
DMC_DEVICE void copy_slot(const PagePool& format, int head_dim, const std::byte* from, int from_row,
                          std::byte* to, int to_row) {
  const int P = format.page_slots;
  const int64_t row_bytes = int64_t{head_dim} * slot_number_bytes(kType);
  const auto words_from = reinterpret_cast<const uint32_t*>(from);
  const auto words_to = reinterpret_cast<uint32_t*>(to);
  const int64_t row_words = row_bytes / 4;
  for (int64_t part = 0; part < 2; ++part) {  // the key, the value
    const int64_t source = (part * P + from_row) * row_words;
    const int64_t target = (part * P + to_row) * row_words;
    for (int64_t i = Team::lane(); i < row_words; i += Team::size()) {
      words_to[target + i] = words_from[source + i];
    }
  }
  // Behind the rows of a page: the numbers that each slot has beside, such as its scales.
  const int beside = static_cast<int>((format.page_bytes / P - 2 * row_bytes) / 4);
  for (int n = Team::lane(); n < beside; n += Team::size()) {
    const int64_t numbers = (int64_t{2} * row_words + n) * P;
    words_to[numbers + to_row] = words_from[numbers + from_row];
  }
}

DMC_HOST_DEVICE std::byte* page_of_slot(const PagePool& pool, const Streams& streams,
                                        int64_t stream, int32_t slot) {
  return pool.memory + streams.table(stream)[slot / pool.page_slots] * pool.page_bytes;
}

// Marks slot `slot`, of the token at `position`: behind all other marks. For one lane.
DMC_HOST_DEVICE void add_mark(const Streams& streams, int64_t stream, int32_t position,
                              int32_t slot) {
  *streams.mark(stream, streams.mark_count[stream]) = {position, slot};
  ++streams.mark_count[stream];
}

// Takes the oldest mark away; all lanes get it.
template <class Team>
DMC_DEVICE Mark pop_mark(const Streams& streams, int64_t stream) {
  const Mark oldest = *streams.mark(stream, 0);
  Team::sync();  // all have it
  if (Team::lane() == 0) {
    streams.mark_head[stream] = (streams.mark_head[stream] + 1) % streams.mark_capacity();
    --streams.mark_count[stream];
  }
  Team::sync();
  return oldest;
}

// Drops a slot: the last one takes its place; its mark and its statistics, if it has them, follow.
// Without a page for the copy of a shared one the slot stays, and counts as refused. Returns
// whether it is gone; all lanes get it.
template <DType kType, class Team>
DMC_DEVICE bool drop_slot(const PagePool& pool, const PageStack& stack, const Streams& streams,
                          int64_t stream, int head_dim, int32_t slot) {
  const int P = pool.page_slots;
  const int32_t last = streams.closed[stream] - 1;
  if (slot != last) {
    if (!own_page<Team>(pool, stack, streams, stream, slot / P)) {
      if (Team::lane() == 0) Team::add(stack.refused, 1);
      return false;
    }
    copy_slot<kType, Team>(pool, head_dim, page_of_slot(pool, streams, stream, last), last % P,
                           page_of_slot(pool, streams, stream, slot), slot % P);
    for (int n = Team::lane(); n < streams.marked(stream); n += Team::size()) {
      Mark* const mark = streams.mark(stream, n);
      if (mark->slot == last) mark->slot = slot;
    }
  }
  Team::sync();
  if (Team::lane() == 0) {
    if (last % P == 0) drop_page<Team>(stack, streams.table(stream)[last / P]);
    streams.closed[stream] = last;
    if (streams.evicts()) {
      policy::SlotStats* const stats = streams.stats_of(stream, P);
      stats[slot] = stats[last];
      stats[last] = stats[last + 1];  // the open slot's
    }
  }
  Team::sync();
  return true;
}

// Drops the marked tokens that a query at `position` no longer sees.
template <DType kType, class Team>
DMC_DEVICE void expire(const PagePool& pool, const PageStack& stack, const Streams& streams,
                       int64_t stream, int head_dim, int32_t position) {
  while (streams.mark_count[stream] > 0 &&
         position - streams.mark(stream, 0)->position > streams.delay) {
    const Mark oldest = pop_mark<Team>(streams, stream);
    drop_slot<kType, Team>(pool, stack, streams, stream, head_dim, oldest.slot);
  }
}

// take_token() for such a policy: every token closes the slot of the one before it, which `merge`
// says will go.
template <DType kType, class Team>
DMC_DEVICE void take_token_late(const PagePool& pool, const PageStack& stack,
                                const Streams& streams, int64_t stream, int head_dim,
                                const TokenPair& token) {
  if (streams.open_count[stream] > 0) {
    const bool there = append_closed<kType, Team>(pool, stack, streams, stream, head_dim,
                                                  streams.open_key(stream, head_dim),
                                                  streams.open_value(stream, head_dim));
    Team::sync();
    if (there && token.merge && Team::lane() == 0) {
      add_mark(streams, stream, token.position - 1, streams.closed[stream] - 1);
    }
    Team::sync();
  }
  expire<kType, Team>(pool, stack, streams, stream, head_dim, token.position);
  const int count = push_entry<Team>(streams, stream, head_dim, /*first=*/true, token);
  pool_entries<Team>(streams, stream, head_dim, count, token.cos, token.sin);
}

// Item `item` of a step's batch takes its token in, as the cache's policy wants it.
template <DType kType, class Team>
DMC_DEVICE void take_step_token(const PagePool& pool, const PageStack& stack,
                                const Streams& streams, const Batch& batch, int layer, int item,
                                int head_dim, const StepTokens& tokens, const RopeView& rope) {
  const int64_t at = int64_t{item} * head_dim, stream = batch.stream(layer, item);
  const int32_t position = tokens.positions[item / batch.kv_heads];
  const int64_t angle = int64_t{position} * (head_dim / 2);
  const TokenPair token{tokens.k + at,
                        tokens.v + at,
                        tokens.importance[item],
                        tokens.merge[item] != 0,
                        rope.cos == nullptr ? nullptr : rope.cos + angle,
                        rope.sin == nullptr ? nullptr : rope.sin + angle,
                        position};
  if (streams.late()) {
    take_token_late<kType, Team>(pool, stack, streams, stream, head_dim, token);
  } else {
    take_token<kType, Team>(pool, stack, streams, stream, head_dim, token);
  }
  // The open slot's statistics lie behind those of the closed ones, and so are its own when it is
  // closed.
  if (streams.evicts() && Team::lane() == 0) {
    streams.stats_of(stream, pool.page_slots)[streams.closed[stream]] = {position, 0.0f, 0.0};
  }
}

}  // namespace dmc::kernels::cuda

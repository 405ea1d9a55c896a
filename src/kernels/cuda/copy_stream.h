// A stream's copy, for a sequence that is continued in two ways.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prompt.h"

namespace dmc::kernels::cuda {

// `to` holds the pages of `from` too.
template <class Team>
DMC_DEVICE void share_pages(const PageStack& stack, const Streams& streams, int64_t from,
                            int64_t to, int pages) {
  for (int n = Team::lane(); n < pages; n += Team::size()) {
    const int32_t page = streams.table(from)[n];
    streams.table(to)[n] = page;
    Team::add(&stack.references[page], 1);
  }
}

// The empty stream `to` becomes a copy of `from` and shares its pages. If not `share`, it gets
// pages of its own; without enough of them it stays empty, and the slots are counted as refused.
template <class Team>
DMC_DEVICE void copy_stream(const PagePool& pool, const PageStack& stack, const Streams& streams,
                            int head_dim, int64_t from, int64_t to, bool share) {
  const int32_t closed = streams.closed[from];
  const int pages = (closed + pool.page_slots - 1) / pool.page_slots;
  if (share) {
    share_pages<Team>(stack, streams, from, to, pages);
  } else {
    if (!reserve_pages<Team>(pool, stack, streams, to, closed)) return;
    for (int n = 0; n < pages; ++n) {
      copy_page<Team>(pool, streams.table(from)[n], streams.table(to)[n]);
    }
  }
  const int capacity = streams.capacity();
  for (int i = Team::lane(); i < capacity; i += Team::size()) {
    streams.open_weights[to * capacity + i] = streams.open_weights[from * capacity + i];
  }
  const int64_t pairs = int64_t{capacity + 1} * 2 * head_dim;
  for (int64_t i = Team::lane(); i < pairs; i += Team::size()) {
    streams.open_pairs[to * pairs + i] = streams.open_pairs[from * pairs + i];
  }
  for (int n = Team::lane(); n < streams.marked(from); n += Team::size()) {
    *(streams.marks + to * streams.mark_capacity() + n) = *streams.mark(from, n);
  }
  for (int n = Team::lane(); streams.evicts() && n <= closed; n += Team::size()) {
    streams.stats_of(to, pool.page_slots)[n] = streams.stats_of(from, pool.page_slots)[n];
  }
  const int64_t queries = int64_t{streams.observes} * streams.query_floats;
  for (int64_t i = Team::lane(); i < queries; i += Team::size()) {
    streams.observers[to * queries + i] = streams.observers[from * queries + i];
  }
  if (Team::lane() != 0) return;
  if (streams.observes > 0) streams.observed[to] = streams.observed[from];
  if (streams.late()) {
    streams.mark_count[to] = streams.mark_count[from];
    streams.mark_head[to] = 0;
  }
  streams.open_count[to] = streams.open_count[from];
  streams.open_head[to] = streams.open_head[from];
  streams.closed[to] = closed;
}

}  // namespace dmc::kernels::cuda

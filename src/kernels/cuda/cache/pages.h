// Pages of a stream: taken from the stack, shared between copies of a sequence, given back.
#pragma once

#include <cstdint>

#include "kernels/cuda/cache/device_cache.h"

namespace dmc::kernels::cuda {

// `count` pages from the stack, which become `to[0..count-1]`: all or none. For one lane. Returns
// whether there were enough.
template <class Team>
DMC_DEVICE bool take_pages(const PageStack& stack, int count, int32_t* to) {
  if (count == 0) return true;
  int32_t left = Team::add(stack.left, -count);
  if (left < count) {
    Team::add(stack.left, count);
    return false;
  }
  for (int n = 0; n < count; ++n) {
    to[n] = stack.ids[--left];
    stack.references[to[n]] = 1;
  }
  return true;
}

// Gives up a stream's hold on a page. For one lane, after the team's last look at the page.
template <class Team>
DMC_DEVICE void drop_page(const PageStack& stack, int32_t page) {
  Team::fence();
  if (Team::add(&stack.references[page], -1) > 1) return;
  stack.returned[Team::add(stack.waiting, 1)] = page;
}

// Puts the pages that were given back on the stack. Alone in its launch.
template <class Team>
DMC_DEVICE void collect_pages(const PageStack& stack) {
  const int32_t left = *stack.left, waiting = *stack.waiting;
  for (int32_t n = Team::lane(); n < waiting; n += Team::size()) {
    stack.ids[left + n] = stack.returned[n];
  }
  Team::sync();
  if (Team::lane() != 0) return;
  *stack.left = left + waiting;
  *stack.waiting = 0;
}

template <class Team>
DMC_DEVICE void copy_page(const PagePool& pool, int32_t from, int32_t to) {
  const auto* const source =
      reinterpret_cast<const uint32_t*>(pool.memory + from * pool.page_bytes);
  auto* const copy = reinterpret_cast<uint32_t*>(pool.memory + to * pool.page_bytes);
  for (int64_t i = Team::lane(); i < pool.page_bytes / 4; i += Team::size()) copy[i] = source[i];
}

// Makes page `number` of a stream one that it may write to: where others hold it too, a copy.
// Returns whether there was a page for it. Whoever finds itself alone was left by the others after
// they had made their copies.
template <class Team>
DMC_DEVICE bool own_page(const PagePool& pool, const PageStack& stack, const Streams& streams,
                         int64_t stream, int number) {
  int32_t* const entry = streams.table(stream) + number;
  const int32_t shared = *entry;
  int32_t own = shared;
  if (Team::lane() == 0) {
    const bool alone = Team::add(&stack.references[shared], 0) == 1;
    Team::fence();
    if (!alone && !take_pages<Team>(stack, 1, &own)) own = -1;
  }
  own = Team::of_first(own);
  if (own < 0) return false;
  if (own == shared) return true;
  copy_page<Team>(pool, shared, own);
  Team::sync();
  if (Team::lane() == 0) {
    *entry = own;
    drop_page<Team>(stack, shared);
  }
  Team::sync();
  return true;
}

// Gives a stream's pages back and empties it.
template <class Team>
DMC_DEVICE void release_stream(const PagePool& pool, const PageStack& stack, const Streams& streams,
                               int64_t stream) {
  const int pages = (streams.closed[stream] + pool.page_slots - 1) / pool.page_slots;
  for (int n = Team::lane(); n < pages; n += Team::size()) {
    drop_page<Team>(stack, streams.table(stream)[n]);
  }
  Team::sync();
  if (Team::lane() != 0) return;
  streams.closed[stream] = 0;
  streams.open_count[stream] = 0;
  streams.open_head[stream] = 0;
  if (streams.late()) streams.mark_count[stream] = 0;
  if (streams.observes > 0) streams.observed[stream] = 0;
}

}  // namespace dmc::kernels::cuda

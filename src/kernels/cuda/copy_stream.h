// A stream's copy, for a sequence that is continued in two ways.
#pragma once

#include <cstdint>

#include "kernels/cuda/prompt.h"

namespace dmc::kernels::cuda {

// The empty stream `to` becomes a copy of `from`, with pages of its own. Without enough of them it
// stays empty, and the slots are counted as refused.
template <class Team>
DMC_DEVICE void copy_stream(const PagePool& pool, const PageStack& stack, const Streams& streams,
                            int head_dim, int64_t from, int64_t to) {
  const int32_t closed = streams.closed[from];
  int32_t enough = 0;
  if (Team::lane() == 0) enough = reserve_pages<Team>(pool, stack, streams, to, closed) ? 1 : 0;
  if (Team::of_first(enough) == 0) return;
  const int pages = (closed + pool.page_slots - 1) / pool.page_slots;
  const int64_t words = pool.page_bytes / 4;
  for (int page = 0; page < pages; ++page) {
    const auto address = [&](int64_t stream) {
      return reinterpret_cast<uint32_t*>(pool.memory +
                                         streams.table(stream)[page] * pool.page_bytes);
    };
    const uint32_t* const source = address(from);
    uint32_t* const copy = address(to);
    for (int64_t i = Team::lane(); i < words; i += Team::size()) copy[i] = source[i];
  }
  const int capacity = streams.capacity();
  for (int i = Team::lane(); i < capacity; i += Team::size()) {
    streams.open_weights[to * capacity + i] = streams.open_weights[from * capacity + i];
  }
  const int64_t pairs = int64_t{capacity + 1} * 2 * head_dim;
  for (int64_t i = Team::lane(); i < pairs; i += Team::size()) {
    streams.open_pairs[to * pairs + i] = streams.open_pairs[from * pairs + i];
  }
  if (Team::lane() != 0) return;
  streams.open_count[to] = streams.open_count[from];
  streams.open_head[to] = streams.open_head[from];
  streams.closed[to] = closed;
}

}  // namespace dmc::kernels::cuda

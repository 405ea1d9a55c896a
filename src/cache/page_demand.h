// How many pages a stream may take at most, before it does.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dmc::cache {

inline int64_t pages_of(int64_t slots, int64_t page_slots) {
  return (slots + page_slots - 1) / page_slots;
}

// By a stream with `closed` slots that takes `tokens` more tokens in, each of which may close one.
// `most_closed`: what eviction leaves of them at most; none: no limit.
inline int64_t pages_to_grow(int64_t closed, int64_t tokens, int64_t page_slots,
                             int64_t most_closed) {
  const int64_t peak = std::min(closed + tokens, std::max(closed, most_closed));
  return pages_of(peak, page_slots) - pages_of(closed, page_slots);
}

}  // namespace dmc::cache

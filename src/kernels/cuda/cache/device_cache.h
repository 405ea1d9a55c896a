// The compressed KV cache as it lies in device memory: the same pages and open slots as those of
// cache::KvCache, with tables instead of objects, so that a decode step needs nothing from the
// host. All pointers are device pointers unless a comment says otherwise.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/cuda/lanes/portable.h"
#include "policy/eviction.h"

namespace dmc::kernels::cuda {

// Slots that a warp takes at a time: the rows of one tensor-core tile. Pages hold a multiple of it,
// so a tile never crosses a page.
constexpr int kTileSlots = 16;

constexpr int slot_number_bytes(DType type) {
  return type == DType::kF32 ? 4 : is_scaled(type) ? 1 : 2;
}
// What the largest number of a row becomes in a type whose rows have scales.
constexpr float largest_scaled(DType type) { return type == DType::kI8 ? 127.0f : 448.0f; }

// Page `id` starts at memory + id * page_bytes; inside it is as slot_page.h says.
struct PagePool {
  std::byte* memory;
  int64_t page_bytes;  // a multiple of 16
  int page_slots;      // a multiple of kTileSlots
};

// Which pages are free, and how many streams hold each of the others. A launch may take pages and
// give some back: those wait in `returned` until a launch of its own puts them on the stack
// (collect_pages), so that atomic counters are all the lock that is needed.
struct PageStack {
  int32_t* ids;  // free ones: ids[0..*left-1]
  int32_t* left;
  int32_t* refused;     // slots dropped because no page was left; the host checks it a step late
  int32_t* references;  // by page: streams that hold it. A page of several is not written to
  int32_t* returned;    // returned[0..*waiting-1]
  int32_t* waiting;
};

// A closed slot that will go, and the position of its token.
struct Mark {
  int32_t position, slot;
};

// The state of every (layer, cache row, KV head), a *stream*. A cache row is the place that a
// sequence has in the cache for its lifetime; streams are numbered [layer][row][head].
struct Streams {
  int32_t* closed;      // [streams] closed slots
  int32_t* pages;       // [streams][max_pages]
  int32_t* open_count;  // [streams] entries of the open slot's ring in use
  int32_t* open_head;   // [streams] ring position of the oldest
  float* open_weights;  // [streams][capacity]
  float* open_pairs;    // [streams][capacity + 1][2][d]: pooled key (rotated) and value, then the
                        // ring's raw ones
  int64_t max_pages;
  int window;  // 0: all tokens of a segment in one running mean
  // Only with a policy that evicts late (late.h): a query sees a token that will go for `delay`
  // tokens more. Rings of marks, the oldest at mark_head.
  int delay = -1;                                       // -1: no slot goes
  int32_t *mark_count = nullptr, *mark_head = nullptr;  // [streams]
  Mark* marks = nullptr;                                // [streams][mark_capacity]
  // Only with a policy that evicts (evict.h): of each closed slot and, behind them, of the open
  // one.
  policy::SlotStats* stats = nullptr;  // [streams][stats_capacity]
  // Only with a policy that looks at a prompt's end (prompt_end.h): the queries of the prompt's
  // last `observes` tokens, the nth at place n % observes, and how many tokens there were.
  int observes = 0;
  int query_floats = 0;         // of a stream's token: group * head_dim
  float* observers = nullptr;   // [streams][observes][query_floats]
  int32_t* observed = nullptr;  // [streams]

  DMC_HOST_DEVICE bool evicts() const { return stats != nullptr; }
  // Streams hold max_pages pages at most, whatever is refused, and an open slot.
  DMC_HOST_DEVICE int64_t stats_capacity(int page_slots) const {
    return max_pages * page_slots + 1;
  }
  DMC_HOST_DEVICE policy::SlotStats* stats_of(int64_t stream, int page_slots) const {
    return stats + stream * stats_capacity(page_slots);
  }
  DMC_HOST_DEVICE float* observer(int64_t stream, int n) const {
    return observers + (stream * observes + n % observes) * query_floats;
  }

  DMC_HOST_DEVICE bool late() const { return delay >= 0; }
  DMC_HOST_DEVICE int mark_capacity() const { return delay + 2; }
  DMC_HOST_DEVICE int32_t marked(int64_t stream) const { return late() ? mark_count[stream] : 0; }
  // The nth oldest; n = marked(): the place of the next.
  DMC_HOST_DEVICE Mark* mark(int64_t stream, int n) const {
    return marks + stream * mark_capacity() + (mark_head[stream] + n) % mark_capacity();
  }

  DMC_HOST_DEVICE int capacity() const { return window > 1 ? window : 1; }
  DMC_HOST_DEVICE int32_t* table(int64_t stream) const { return pages + stream * max_pages; }
  DMC_HOST_DEVICE const float* open_key(int64_t stream, int head_dim) const {
    return open_pairs + stream * (capacity() + 1) * 2 * head_dim;
  }
  DMC_HOST_DEVICE const float* open_value(int64_t stream, int head_dim) const {
    return open_key(stream, head_dim) + head_dim;
  }
};

// The sequences of one step. Row b of the batch is the sequence in cache row rows[b]; -1: none, so
// that a captured graph can serve a batch that is not full.
struct Batch {
  const int32_t* rows;  // [batch]
  int batch;
  int kv_heads;
  int cache_rows;  // of the cache

  DMC_HOST_DEVICE int items() const { return batch * kv_heads; }  // streams of one layer's step
  DMC_HOST_DEVICE bool active(int item) const { return rows[item / kv_heads] >= 0; }
  DMC_HOST_DEVICE int64_t stream(int layer, int item) const {
    const int64_t row = static_cast<int64_t>(layer) * cache_rows + rows[item / kv_heads];
    return row * kv_heads + item % kv_heads;
  }
};

}  // namespace dmc::kernels::cuda

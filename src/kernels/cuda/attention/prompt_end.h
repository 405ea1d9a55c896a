// Policies that compress a prompt when it ends (Policy::keep_of_prompt): SnapKV. As
// cache/prompt_end.cpp.
//
//   remember_queries   those of a chunk's last tokens, the observers
//   weigh_slots        what an observer gave the slots before the observers
//   choose_slots       those of most attention
//   keep_slots         moves them together and gives pages back
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prompt.h"
#include "kernels/cuda/attention/slot_attention.h"
#include "kernels/cuda/cache/late.h"
#include "policy/eviction.h"

namespace dmc::kernels::cuda {

// The end of one sequence's prompt at one layer. Streams: first_stream + head.
struct PromptEnd {
  int64_t first_stream;
  int kv_heads, head_dim, group;
  float scale;
  int32_t budget;     // slots that a stream may keep, the open one included; above `observes`
  int64_t most;       // slots of a stream, at most
  float* scores;      // [kv_heads][observes][most], for the launches to work in
  float* weights;     // the same: what each observer gave each slot
  double* attention;  // [kv_heads][most]: by all observers
  double* pooled;     // [kv_heads][most]: with their neighbours'
  int32_t* kept;      // [kv_heads][most]: slots to keep, ascending

  DMC_HOST_DEVICE float* row_of(float* rows, int observes, int head, int observer) const {
    return rows + (int64_t{head} * observes + observer) * most;
  }
};

// A stream as its prompt ends.
struct EndingStream {
  StreamSlots slots;
  int32_t observers;  // its newest tokens, the open slot's among them
  int32_t before;     // slots in front of them

  DMC_HOST_DEVICE bool over(int32_t budget) const { return slots.closed() + 1 > budget; }
};

DMC_HOST_DEVICE EndingStream ending_stream(const PagePool& pool, const Streams& streams,
                                           const PromptEnd& end, int head) {
  const int64_t stream = end.first_stream + head;
  const StreamSlots slots{pool, streams, stream, end.head_dim};
  const int32_t seen = streams.observed[stream];
  const int32_t observers = seen < streams.observes ? seen : streams.observes;
  return {slots, observers, slots.closed() + 1 - observers};
}

// The queries of a chunk's last tokens at one head. q: [tokens][kv_heads][query_floats].
template <class Team>
DMC_DEVICE void remember_queries(const Streams& streams, const PromptChunk& chunk, const float* q,
                                 int head) {
  const int64_t stream = chunk.stream(head);
  const int32_t seen = streams.observed[stream], width = streams.query_floats;
  const int first = chunk.tokens > streams.observes ? chunk.tokens - streams.observes : 0;
  for (int t = first; t < chunk.tokens; ++t) {
    float* const to = streams.observer(stream, seen + t);
    const float* const from = q + chunk.row(t, head) * width;
    for (int i = Team::lane(); i < width; i += Team::size()) to[i] = from[i];
  }
  Team::sync();  // everybody has read the count
  if (Team::lane() == 0) streams.observed[stream] = seen + chunk.tokens;
}

// Fills the observer's row of end.weights. It sees the slots up to its own.
template <DType kType, class Team>
DMC_DEVICE void weigh_slots(const PagePool& pool, const Streams& streams, const PromptEnd& end,
                            int head, int observer) {
  const EndingStream of = ending_stream(pool, streams, end, head);
  if (!of.over(end.budget) || observer >= of.observers) return;
  const int64_t stream = of.slots.stream;
  const int32_t count = of.before + observer + 1;
  float* const weights = end.row_of(end.weights, streams.observes, head, observer);
  for (int32_t slot = Team::lane(); slot < count; slot += Team::size()) weights[slot] = 0.0f;
  const float* const q =
      streams.observer(stream, streams.observed[stream] - of.observers + observer);
  add_mean_weights<kType, Team>(of.slots, count, {q, end.group, end.scale},
                                end.row_of(end.scores, streams.observes, head, observer),
                                [&](int32_t slot) -> float& { return weights[slot]; });
}

// As numbers that are not negative lie in memory, their bits order them.
DMC_DEVICE uint64_t bits_of(double number) {
  uint64_t bits;
  __builtin_memcpy(&bits, &number, sizeof(bits));
  return bits;
}

// The greatest bound that at least `wanted` of numbers[0..count-1] reach, as bits. All lanes get
// it.
template <class Team>
DMC_DEVICE uint64_t bound_of_largest(const double* numbers, int32_t count, int32_t wanted) {
  uint64_t bound = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t raised = bound | uint64_t{1} << bit;
    int32_t reach = 0;
    for (int32_t i = Team::lane(); i < count; i += Team::size()) {
      reach += bits_of(numbers[i]) >= raised ? 1 : 0;
    }
    if (Team::sum(reach) >= wanted) bound = raised;
  }
  return bound;
}

// Writes the indices of the `wanted` largest of numbers[0..count-1], ascending; of equal ones the
// first. A lane has a run of them.
template <class Team>
DMC_DEVICE void find_largest(const double* numbers, int32_t count, int32_t wanted, int32_t* found) {
  const uint64_t bound = bound_of_largest<Team>(numbers, count, wanted);
  const int32_t length = (count + Team::size() - 1) / Team::size();
  const int32_t start = Team::lane() * length, first = start < count ? start : count;
  const int32_t last = count - first < length ? count : first + length;
  int32_t above = 0, equal = 0, all_above = 0, all_equal = 0;
  for (int32_t i = first; i < last; ++i) {
    above += bits_of(numbers[i]) > bound ? 1 : 0;
    equal += bits_of(numbers[i]) == bound ? 1 : 0;
  }
  const int32_t above_before = Team::sum_before(above, &all_above);
  const int32_t equal_before = Team::sum_before(equal, &all_equal);
  const int32_t wanted_equal = wanted - all_above;
  int32_t equals = equal_before;
  int32_t place = above_before + (equal_before < wanted_equal ? equal_before : wanted_equal);
  for (int32_t i = first; i < last; ++i) {
    const bool is_equal = bits_of(numbers[i]) == bound;
    if (bits_of(numbers[i]) > bound || (is_equal && equals < wanted_equal)) found[place++] = i;
    equals += is_equal ? 1 : 0;
  }
}

// Fills the head's row of end.kept for slots before the observers.
template <class Team>
DMC_DEVICE void choose_slots(const PagePool& pool, const Streams& streams, const PromptEnd& end,
                             int head) {
  const EndingStream of = ending_stream(pool, streams, end, head);
  if (!of.over(end.budget)) return;
  double* const attention = end.attention + head * end.most;
  double* const pooled = end.pooled + head * end.most;
  for (int32_t slot = Team::lane(); slot < of.before; slot += Team::size()) {
    double sum = 0.0;
    for (int n = 0; n < of.observers; ++n) {
      sum += static_cast<double>(end.row_of(end.weights, streams.observes, head, n)[slot]);
    }
    attention[slot] = sum;
  }
  Team::sync();
  for (int32_t slot = Team::lane(); slot < of.before; slot += Team::size()) {
    pooled[slot] = policy::with_neighbours(attention, of.before, slot);
  }
  Team::sync();
  find_largest<Team>(pooled, of.before, end.budget - of.observers, end.kept + head * end.most);
}

// Leaves the chosen slots and the observers' in the stream, in their order.
template <DType kType, class Team>
DMC_DEVICE void keep_slots(const PagePool& pool, const PageStack& stack, const Streams& streams,
                           const PromptEnd& end, int head) {
  const EndingStream of = ending_stream(pool, streams, end, head);
  const int64_t stream = of.slots.stream;
  const int P = pool.page_slots;
  const int32_t closed = of.slots.closed(), chosen = end.budget - of.observers;
  const int32_t left = of.over(end.budget) ? end.budget - 1 : closed;
  const int32_t* const kept = end.kept + head * end.most;
  for (int32_t slot = 0; slot < left && left < closed; ++slot) {
    const int32_t from = slot < chosen ? kept[slot] : of.before + slot - chosen;
    if (from == slot) continue;
    if (!own_page<Team>(pool, stack, streams, stream, slot / P)) {
      if (Team::lane() == 0) Team::add(stack.refused, 1);
      return;
    }
    copy_slot<kType, Team>(pool, end.head_dim, page_of_slot(pool, streams, stream, from), from % P,
                           page_of_slot(pool, streams, stream, slot), slot % P);
    Team::sync();
  }
  for (int n = (left + P - 1) / P + Team::lane(); n < (closed + P - 1) / P; n += Team::size()) {
    drop_page<Team>(stack, streams.table(stream)[n]);
  }
  Team::sync();
  if (Team::lane() != 0) return;
  streams.closed[stream] = left;
  streams.observed[stream] = 0;
}

}  // namespace dmc::kernels::cuda

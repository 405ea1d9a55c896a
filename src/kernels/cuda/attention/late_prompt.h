// A chunk of a prompt with a policy that evicts late. Tokens that will go do not enter the cache:
// they pass by in a memory of their own, where each query sees those of its window. What the last
// query still sees is marked in the cache when the chunk ends. As cache::PassingSlots.
//
//   lift_marked       moves what is marked out of the cache
//   passed_by         what each token no longer sees of them
//   write_passing     those that the chunk decides against
//   return_marked     at the chunk's end
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prompt.h"
#include "kernels/cuda/cache/late.h"

namespace dmc::kernels::cuda {

template <DType kType, class Team>
DMC_DEVICE void lift_marked(const PagePool& pool, const PageStack& stack, const Streams& streams,
                            const PromptChunk& chunk, int head) {
  const PassingTokens& passing = chunk.passing;
  const int64_t stream = chunk.stream(head);
  const int P = pool.page_slots;
  const int32_t count = streams.mark_count[stream];
  for (int n = 0; n < count; ++n) {
    const Mark mark = pop_mark<Team>(streams, stream);
    copy_slot<kType, Team>(pool, chunk.head_dim, page_of_slot(pool, streams, stream, mark.slot),
                           mark.slot % P, passing.page(head, n / P), n % P);
    Team::sync();
    drop_slot<kType, Team>(pool, stack, streams, stream, chunk.head_dim, mark.slot);
    if (Team::lane() == 0) passing.positions[head * passing.capacity() + n] = mark.position;
  }
  if (Team::lane() == 0) passing.lifted[head] = count;
}

// How many of the passing tokens are more than the delay in front of `token`. Those of its own
// chunk that are: all that had been marked when the token a delay before it came (passing.to).
DMC_HOST_DEVICE int32_t passed_by(const Streams& streams, const PromptChunk& chunk, int token,
                                  int head) {
  const PassingTokens& passing = chunk.passing;
  if (token >= streams.delay) return passing.to[chunk.row(token - streams.delay, head)];
  const int32_t* const positions = passing.positions + head * passing.capacity();
  const int32_t oldest = chunk.positions[token] - streams.delay;
  int32_t n = 0;
  while (n < passing.lifted[head] && positions[n] < oldest) ++n;
  return n;
}

// Where there are too few pages for a chunk.
DMC_HOST_DEVICE void see_nothing(const PromptChunk& chunk, int token, int head) {
  const int64_t row = chunk.row(token, head);
  chunk.visible[row] = 0;
  if (chunk.passing.from != nullptr) chunk.passing.from[row] = chunk.passing.to[row] = 0;
}

// Writes the token before `token` if that one says that it will go.
template <DType kType, class Team>
DMC_DEVICE void write_passing(const Streams& streams, const PromptChunk& chunk, int token,
                              int head) {
  const PassingTokens& passing = chunk.passing;
  const int n = passing.to[chunk.row(token, head)] - 1;
  if (n < 0 || !chunk.marks(streams, token, head)) return;
  const ClosedPair pair = pair_before(streams, chunk, token, head);
  const int P = passing.pool.page_slots;
  write_slot<kType, Team>(passing.pool, head * passing.pages + n / P, n % P, chunk.head_dim,
                          pair.key, pair.value);
  if (Team::lane() == 0) {
    passing.positions[head * passing.capacity() + n] = chunk.positions[token] - 1;
  }
}

// Behind finish_prompt(). The pages are there.
template <DType kType, class Team>
DMC_DEVICE void return_marked(const PagePool& pool, const Streams& streams,
                              const PromptChunk& chunk, int head) {
  const PassingTokens& passing = chunk.passing;
  const int64_t stream = chunk.stream(head), row = chunk.row(chunk.tokens - 1, head);
  const int P = pool.page_slots;
  const int32_t first = passing.from[row], left = passing.left(row);
  const int32_t closed = streams.closed[stream];
  for (int n = 0; n < left; ++n) {
    const int32_t slot = closed + n, of = first + n;
    copy_slot<kType, Team>(pool, chunk.head_dim, passing.page(head, of / P), of % P,
                           page_of_slot(pool, streams, stream, slot), slot % P);
    if (Team::lane() == 0) {
      add_mark(streams, stream, passing.positions[head * passing.capacity() + of], slot);
    }
  }
  Team::sync();
  if (Team::lane() == 0) streams.closed[stream] = closed + left;
}

}  // namespace dmc::kernels::cuda

// Decode attention on the device: one token for each sequence of a batch, all on one stream,
// without a word from the host (so a whole step can be captured in a CUDA graph).
//
//   plan_decode          once a step, before any layer has taken its token in
//   take_tokens          a layer: append or merge
//   decode_attention     a layer: attend
//   release_rows         when sequences have ended
//   collect_pages        before pages that were given back are needed
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/plan.h"
#include "kernels/cuda/cache/device_cache.h"

struct CUstream_st;  // cudaStream_t, so that this header needs no CUDA

namespace dmc::kernels::cuda {

using Stream = CUstream_st*;

// Query heads of a KV head that one pass can serve: the columns of a tensor-core tile.
constexpr int kMaxGroup = 8;

struct DecodeShape {
  DType slot_type;  // as kernels::PageFormat's
  int head_dim;
  int group;  // query heads of a KV head
};

// Bytes and places of what the kernels need between launches. `memory` must hold bytes() zeros
// once; the kernels leave it good for the next step.
struct DecodeWorkspace {
  std::byte* memory;
  int layers, max_items;  // items: sequences of a batch times KV heads
  int max_workers;        // decode_workers()
  int head_dim, group;

  DMC_HOST_DEVICE int64_t partial_floats() const { return int64_t{head_dim} + 2; }
  DMC_HOST_DEVICE int64_t bytes() const {
    return align(starts_bytes()) + align(cuts_bytes()) + align(arrivals_bytes()) +
           2 * int64_t{max_workers} * group * partial_floats() * 4;
  }
  DMC_HOST_DEVICE PlanView plan(int layer) const {
    auto* const starts = reinterpret_cast<int32_t*>(memory);
    auto* const cuts = reinterpret_cast<Cut*>(memory + align(starts_bytes()));
    return {starts + int64_t{layer} * (max_items + 1), cuts + int64_t{layer} * (max_workers + 1),
            max_workers};
  }
  // [max_items]: how many parts of a stream have arrived.
  DMC_HOST_DEVICE int32_t* arrivals() const {
    return reinterpret_cast<int32_t*>(memory + align(starts_bytes()) + align(cuts_bytes()));
  }
  // [max_workers][2][group] PartialRow: of the stream a worker shares with earlier ones, then of
  // the one it shares with later ones.
  DMC_HOST_DEVICE float* partials() const {
    return reinterpret_cast<float*>(memory + align(starts_bytes()) + align(cuts_bytes()) +
                                    align(arrivals_bytes()));
  }

 private:
  DMC_HOST_DEVICE static int64_t align(int64_t bytes) { return (bytes + 255) / 256 * 256; }
  DMC_HOST_DEVICE int64_t starts_bytes() const { return int64_t{layers} * (max_items + 1) * 4; }
  DMC_HOST_DEVICE int64_t cuts_bytes() const {
    return int64_t{layers} * (max_workers + 1) * static_cast<int64_t>(sizeof(Cut));
  }
  DMC_HOST_DEVICE int64_t arrivals_bytes() const { return int64_t{max_items} * 4; }
};

// Thread blocks that run at once on the current device. Error(kInvalidArgument) if there is no
// kernel for the shape.
int decode_workers(const DecodeShape& shape);

// Plans layers 0..workspace.layers-1 from what the streams hold now.
void plan_decode(const Streams& streams, const Batch& batch, const DecodeWorkspace& workspace,
                 Stream stream);

// What the sequences of a batch hand over for a layer: [batch][kv_heads] of everything.
struct StepTokens {
  const float* k;            // [..][head_dim], before rotary, decision channel zeroed
  const float* v;            // [..][head_dim]
  const uint8_t* merge;      // 1: into the open slot (a stream's first token never merges)
  const float* importance;   // weight of the token in its slot, > 0
  const int32_t* positions;  // [batch]: of each sequence's token
};

// cos and sin of rotary angles, each [positions][head_dim / 2] f32; null: keys are not rotated.
struct RopeView {
  const float *cos, *sin;
};

// Each stream of the batch appends or merges its token. Pages are taken from the stack: one at most
// for a stream.
void take_tokens(const DecodeShape& shape, const PagePool& pool, const PageStack& stack,
                 const Streams& streams, const Batch& batch, int layer, const StepTokens& tokens,
                 const RopeView& rope, Stream stream);

// Puts the pages that were given back since the last time on the stack, for launches after it.
void collect_pages(const PageStack& stack, Stream stream);

// Empties the streams of the batch's sequences in all `layers` and gives their pages back.
void release_rows(const PagePool& pool, const PageStack& stack, const Streams& streams,
                  const Batch& batch, int layers, Stream stream);

// out = softmax(scale q K) V over the closed slots and the open one of each of the batch's streams.
// q, out: [batch][kv_heads][group][head_dim] f32; q rotated. Rows of the batch that are not in use
// are not touched. The result has the same bits each time, but other bits in another batch: where
// streams are cut depends on all of them.
void decode_attention(const DecodeShape& shape, const PagePool& pool, const Streams& streams,
                      const Batch& batch, int layer, const float* q, float scale, float* out,
                      const DecodeWorkspace& workspace, Stream stream);

}  // namespace dmc::kernels::cuda

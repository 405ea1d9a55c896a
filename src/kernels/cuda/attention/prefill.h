// One-pass compressed prefill on the device: a chunk of one sequence's prompt, layer by layer.
#pragma once

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/prompt.h"

namespace dmc::kernels::cuda {

// Takes the chunk's tokens into the streams of a layer: pools, closes segments, writes their slots
// and leaves the last one open. Fills chunk.own_key, own_value and visible. All pages a stream
// needs are taken at once; without enough of them the stream stays as it was, sees no closed slot,
// and its slots are counted as refused.
void take_prompt(const DecodeShape& shape, const PagePool& pool, const PageStack& stack,
                 const Streams& streams, const PromptChunk& chunk, Stream stream);

// out = softmax(scale q K) V for every token of the chunk over the closed slots it sees and its own
// partial mean. q, out: [tokens][kv_heads][group][head_dim] f32; q rotated.
void prefill_attention(const DecodeShape& shape, const PagePool& pool, const Streams& streams,
                       const PromptChunk& chunk, const float* q, float scale, float* out,
                       Stream stream);

}  // namespace dmc::kernels::cuda

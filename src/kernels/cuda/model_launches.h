// Launches of model_ops.h, few_rows.h, sample.h, evict.h, prompt_end.h and copy_stream.h. In and
// Out are float, __nv_bfloat16 or Half; In of an embedding may also be int8_t.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/products/few_rows.h"

namespace dmc::kernels::cuda {

// As the functions of Device that have these names.
template <class In>
void embed(const EmbeddingTable<In>& table, const EmbeddingSums& sums, const int32_t* tokens,
           const int32_t* positions, int64_t rows, float* x, Stream stream);
template <class Out>
void activate(Activation kind, const float* from, int64_t rows, int64_t width, Out* out,
              Stream stream);
template <class Out>
void round(const float* from, int64_t count, Out* to, Stream stream);
void choose_tokens(const float* logits, int batch, int32_t vocab, const StepRows& step,
                   Stream stream);
void hold_ratio(const HoldingSpec& spec, const Streams& streams, const Batch& batch,
                const int32_t* tokens, float* biases, Stream stream);
void copy_row(const CacheView& cache, const Batch& two_rows, int layers, int head_dim, bool share,
              Stream stream);
void evict_slots(const DecodeShape& shape, const CacheView& cache, const Batch& batch, int layer,
                 const EvictionStep& step, Stream stream);
void remember_queries(const Streams& streams, const PromptChunk& chunk, const float* q,
                      Stream stream);
void keep_of_prompt(DType slot_type, const CacheView& cache, const PromptEnd& end, Stream stream);

// Every row of y [rows][outputs] = bias.
void spread_bias(const float* bias, int64_t rows, int64_t outputs, float* y, Stream stream);
// y = y * scales + bias (null: none), by output.
void scale_outputs(const float* scales, const float* bias, int64_t rows, int64_t outputs, float* y,
                   Stream stream);
// Whole numbers of 8 bits as bf16, which holds them exactly.
void widen(const int8_t* from, int64_t count, std::byte* to, Stream stream);
// type: kF32, kBF16, kF16 or kI8; takes_few_rows() must say so. At most kMostFewRows rows.
void multiply_few_rows(DType type, const FewRows& args, Stream stream);

}  // namespace dmc::kernels::cuda

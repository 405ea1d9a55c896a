// What the runtime asks of the machine that a model runs on: memory, and the pieces of a decoder as
// launches that run in the order in which they are given. Two implementations: the GPU
// (cuda_device.cu), and the CPU doing the same work on one lane, for tests
// (runtime/device/host_device.h). All pointers are device pointers unless a comment says otherwise.
#pragma once

#include <functional>
#include <memory>

#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prompt_end.h"
#include "kernels/cuda/cache/evict.h"
#include "kernels/cuda/cache/holding.h"
#include "kernels/cuda/rows/model_ops.h"
#include "kernels/cuda/rows/row_ops.h"
#include "kernels/cuda/sampling/sample.h"

namespace dmc::kernels::cuda {

// Numbers in f32, bf16 or f16. A number that f16 cannot hold becomes its largest.
struct Numbers {
  std::byte* data;
  DType type;

  // Those from `count` on.
  Numbers from(int64_t count) const {
    return {data + count * static_cast<int64_t>(dtype_size(type)), type};
  }
};

struct Matrix {
  const std::byte* data;  // [outputs][inputs]
  int64_t outputs, inputs;
  DType type;                     // kF32, kBF16, kF16 or kI8
  const float* scales = nullptr;  // kI8: [outputs]
};

struct CacheView {
  PagePool pool;
  PageStack stack;
  Streams streams;
};

// Launches that were recorded once, to be given again at the cost of one.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // Zeros. Error(kInternal) if there is not so much memory left.
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void free(std::byte* memory) = 0;
  virtual int64_t bytes_left() const = 0;
  // Memory of the host that copies reach without a detour.
  virtual std::byte* allocate_staging(int64_t bytes) = 0;
  virtual void free_staging(std::byte* memory) = 0;

  // From ordinary memory of the host (not staging), which may change once this has returned.
  virtual void copy_in(void* to, const void* from, int64_t bytes) = 0;
  // To the host: there once wait() has returned.
  virtual void copy_out(void* to, const void* from, int64_t bytes) = 0;
  // Until all launches and copies are done.
  virtual void wait() = 0;
  // `launches` must neither allocate, copy nor wait. They do not run until replayed.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& launches) = 0;

  // x [rows][table.inputs] = the tokens' rows of the table, with the sums.
  virtual void embed(const Matrix& table, const EmbeddingSums& sums, const int32_t* tokens,
                     const int32_t* positions, int64_t rows, float* x) = 0;
  // As row_ops.h; out may be x.
  virtual void add_and_norm(const NormSpec& spec, float* x, const float* y, int64_t rows,
                            const Numbers& out) = 0;
  // y [rows][outputs] = x [rows][inputs] W^T + bias (null: none); x has row_type() of W
  // (few_rows.h).
  virtual void linear(const Matrix& weights, const float* bias, const Numbers& x, int64_t rows,
                      float* y) = 0;
  virtual void split_heads(const HeadsSpec& spec, const HeadsRows<float>& io, int64_t rows) = 0;
  // out [rows][width] of [rows][gate | up] or [rows][up].
  virtual void activate(Activation kind, const float* from, int64_t rows, int64_t width,
                        const Numbers& out) = 0;
  virtual void round(const float* from, int64_t count, const Numbers& to) = 0;
  // For each active row: its next token (-1 if a logit is not a number), as sample.h. logits
  // [batch][vocab]; at most kMostSampledTokens.
  virtual void choose_tokens(const float* logits, int batch, int32_t vocab,
                             const StepRows& step) = 0;

  // biases[b] of each active row of the batch, which has seen tokens[b] tokens (holding.h).
  virtual void hold_ratio(const HoldingSpec& spec, const CacheView& cache, const Batch& batch,
                          const int32_t* tokens, float* biases) = 0;

  // As decode.h and prefill.h.
  virtual int decode_workers(const DecodeShape& shape) = 0;
  virtual void plan_decode(const CacheView& cache, const Batch& batch,
                           const DecodeWorkspace& workspace) = 0;
  virtual void take_tokens(const DecodeShape& shape, const CacheView& cache, const Batch& batch,
                           int layer, const StepTokens& tokens, const RopeView& rope) = 0;
  virtual void decode_attention(const DecodeShape& shape, const CacheView& cache,
                                const Batch& batch, int layer, const float* q, float scale,
                                float* out, const DecodeWorkspace& workspace) = 0;
  virtual void take_prompt(const DecodeShape& shape, const CacheView& cache,
                           const PromptChunk& chunk) = 0;
  virtual void prefill_attention(const DecodeShape& shape, const CacheView& cache,
                                 const PromptChunk& chunk, const float* q, float scale,
                                 float* out) = 0;
  // As evict.h: behind the layer's attention, with a policy that evicts.
  virtual void evict_slots(const DecodeShape& shape, const CacheView& cache, const Batch& batch,
                           int layer, const EvictionStep& step) = 0;
  // As prompt_end.h: of every chunk (q as prefill_attention's), and when the prompt has ended.
  virtual void remember_queries(const CacheView& cache, const PromptChunk& chunk,
                                const float* q) = 0;
  virtual void keep_of_prompt(DType slot_type, const CacheView& cache, const PromptEnd& end) = 0;
  virtual void release_rows(const CacheView& cache, const Batch& batch, int layers) = 0;
  // Pages that were given back can be taken from the next launch on (pages.h).
  virtual void collect_pages(const PageStack& stack) = 0;
  // Sequence rows[1] (empty) becomes a copy of rows[0] and shares its pages, or gets pages of its
  // own; without enough of those, streams stay empty and their slots are counted as refused.
  virtual void copy_row(const CacheView& cache, const Batch& two_rows, int layers, int head_dim,
                        bool share) = 0;
};

// The first GPU. Error(kInvalidArgument) if there is none, if the program was built without CUDA
// (no_cuda/open_device.cpp) or if cuBLAS cannot be found.
std::shared_ptr<Device> open_cuda_device();

}  // namespace dmc::kernels::cuda

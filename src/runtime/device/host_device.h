// For tests: the CPU in a GPU's place. It runs the kernels' own templates on one lane (SoloTeam)
// and attends with the CPU's functions over the device's tables, so that all of the runtime can be
// held against runtime::DecoderRunner without a GPU.
#pragma once

#include <map>
#include <memory>

#include "kernels/cuda/device.h"

namespace dmc::runtime {

class HostDevice : public kernels::cuda::Device {
 public:
  explicit HostDevice(int64_t memory_bytes = int64_t{1} << 30) : left_(memory_bytes) {}

  std::byte* allocate(int64_t bytes) override;
  void free(std::byte* memory) override;
  int64_t bytes_left() const override { return left_; }
  std::byte* allocate_staging(int64_t bytes) override;
  void free_staging(std::byte* memory) override { delete[] memory; }
  void copy_in(void* to, const void* from, int64_t bytes) override;
  void copy_out(void* to, const void* from, int64_t bytes) override;
  void wait() override { ++waits_; }
  std::unique_ptr<kernels::cuda::Recording> record(const std::function<void()>& launches) override;

  void embed(const kernels::cuda::Matrix& table, const kernels::cuda::EmbeddingSums& sums,
             const int32_t* tokens, const int32_t* positions, int64_t rows, float* x) override;
  void add_and_norm(const kernels::cuda::NormSpec& spec, float* x, const float* y, int64_t rows,
                    const kernels::cuda::Numbers& out) override;
  void linear(const kernels::cuda::Matrix& weights, const float* bias,
              const kernels::cuda::Numbers& x, int64_t rows, float* y) override;
  void split_heads(const kernels::cuda::HeadsSpec& spec, const kernels::cuda::HeadsRows<float>& io,
                   int64_t rows) override;
  void activate(kernels::cuda::Activation kind, const float* from, int64_t rows, int64_t width,
                const kernels::cuda::Numbers& out) override;
  void round(const float* from, int64_t count, const kernels::cuda::Numbers& to) override;
  void choose_tokens(const float* logits, int batch, int32_t vocab,
                     const kernels::cuda::StepRows& step) override;

  void hold_ratio(const kernels::cuda::HoldingSpec& spec, const kernels::cuda::CacheView& cache,
                  const kernels::cuda::Batch& batch, const int32_t* tokens, float* biases) override;

  int decode_workers(const kernels::cuda::DecodeShape&) override { return 1; }
  // The CPU's attention needs no plan.
  void plan_decode(const kernels::cuda::CacheView&, const kernels::cuda::Batch&,
                   const kernels::cuda::DecodeWorkspace&) override {}
  void take_tokens(const kernels::cuda::DecodeShape& shape, const kernels::cuda::CacheView& cache,
                   const kernels::cuda::Batch& batch, int layer,
                   const kernels::cuda::StepTokens& tokens,
                   const kernels::cuda::RopeView& rope) override;
  void decode_attention(const kernels::cuda::DecodeShape& shape,
                        const kernels::cuda::CacheView& cache, const kernels::cuda::Batch& batch,
                        int layer, const float* q, float scale, float* out,
                        const kernels::cuda::DecodeWorkspace&) override;
  void take_prompt(const kernels::cuda::DecodeShape& shape, const kernels::cuda::CacheView& cache,
                   const kernels::cuda::PromptChunk& chunk) override;
  void prefill_attention(const kernels::cuda::DecodeShape& shape,
                         const kernels::cuda::CacheView& cache,
                         const kernels::cuda::PromptChunk& chunk, const float* q, float scale,
                         float* out) override;
  void evict_slots(const kernels::cuda::DecodeShape& shape, const kernels::cuda::CacheView& cache,
                   const kernels::cuda::Batch& batch, int layer,
                   const kernels::cuda::EvictionStep& step) override;
  void remember_queries(const kernels::cuda::CacheView& cache,
                        const kernels::cuda::PromptChunk& chunk, const float* q) override;
  void keep_of_prompt(DType slot_type, const kernels::cuda::CacheView& cache,
                      const kernels::cuda::PromptEnd& end) override;
  void release_rows(const kernels::cuda::CacheView& cache, const kernels::cuda::Batch& batch,
                    int layers) override;
  void collect_pages(const kernels::cuda::PageStack& stack) override;
  void copy_row(const kernels::cuda::CacheView& cache, const kernels::cuda::Batch& two_rows,
                int layers, int head_dim, bool share) override;

  int64_t waits() const { return waits_; }            // calls of wait()
  int64_t recordings() const { return recordings_; }  // calls of record()

 private:
  void check_running() const;  // copies and allocations must not be recorded

  int64_t left_, waits_ = 0, recordings_ = 0;
  bool recording_ = false;
  std::map<std::byte*, int64_t> allocated_;
};

}  // namespace dmc::runtime

// Device on a GPU: our kernels, and cuBLAS for products with many rows.
#include <cuda_bf16.h>

#include "base/human.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/lanes/half.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/products/cublas.h"
#include "kernels/cuda/products/products.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // what cuBLAS wants on sm_90

struct GpuNumbers {
  using BF16 = __nv_bfloat16;
  using F16 = Half;
};
constexpr WithNumbers<GpuNumbers> with_numbers;

class OwnStream {
 public:
  OwnStream() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Graph : public Recording {
 public:
  Graph(cudaStream_t stream, cudaGraph_t graph) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "making a graph of a step");
  }
  ~Graph() override { cudaGraphExecDestroy(executable_); }
  void replay() override { check(cudaGraphLaunch(executable_, stream_), "launching a step"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

std::byte* allocate_memory(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes) + 1);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // else the next launch would report it
    throw exhausted("the GPU has no " + human_bytes(static_cast<double>(bytes)) +
                    " of memory left; give fewer sequences, a shorter context or --kv int8");
  }
  check(status, "allocating memory");
  return static_cast<std::byte*>(memory);
}

class CudaDevice : public Device {
 public:
  CudaDevice()
      : workspace_(allocate_memory(kWorkspaceBytes)),
        blas_(stream_, workspace_.get(), kWorkspaceBytes) {}

  std::byte* allocate(int64_t bytes) override {
    std::byte* const memory = allocate_memory(bytes);
    check(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "clearing memory");
    return memory;
  }
  void free(std::byte* memory) override { cudaFree(memory); }
  int64_t bytes_left() const override {
    size_t left = 0, all = 0;
    check(cudaMemGetInfo(&left, &all), "asking for the memory left");
    return static_cast<int64_t>(left);
  }
  std::byte* allocate_staging(int64_t bytes) override {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "allocating staging memory");
    return static_cast<std::byte*>(memory);
  }
  void free_staging(std::byte* memory) override { cudaFreeHost(memory); }

  void copy_in(void* to, const void* from, int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
          "copying to the GPU");
  }
  void copy_out(void* to, const void* from, int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
          "copying from the GPU");
  }
  void wait() override { check(cudaStreamSynchronize(stream_), "a step"); }
  std::unique_ptr<Recording> record(const std::function<void()>& launches) override;

  void embed(const Matrix& table, const EmbeddingSums& sums, const int32_t* tokens,
             const int32_t* positions, int64_t rows, float* x) override {
    with_numbers.of_table(table, [&]<class In>(const In* numbers) {
      const EmbeddingTable<In> of{numbers, table.scales, table.outputs, table.inputs};
      cuda::embed(of, sums, tokens, positions, rows, x, stream_);
    });
  }
  void add_and_norm(const NormSpec& spec, float* x, const float* y, int64_t rows,
                    const Numbers& out) override {
    with_numbers(out, [&](auto* to) { cuda::add_and_norm(spec, x, y, rows, to, stream_); });
  }
  void linear(const Matrix& weights, const float* bias, const Numbers& x, int64_t rows,
              float* y) override;
  void split_heads(const HeadsSpec& spec, const HeadsRows<float>& io, int64_t rows) override {
    cuda::split_heads(spec, io, rows, stream_);
  }
  void activate(Activation kind, const float* from, int64_t rows, int64_t width,
                const Numbers& out) override {
    with_numbers(out, [&](auto* to) { cuda::activate(kind, from, rows, width, to, stream_); });
  }
  void round(const float* from, int64_t count, const Numbers& to) override {
    with_numbers(to, [&](auto* numbers) { cuda::round(from, count, numbers, stream_); });
  }
  void choose_tokens(const float* logits, int batch, int32_t vocab, const StepRows& step) override {
    cuda::choose_tokens(logits, batch, vocab, step, stream_);
  }

  void hold_ratio(const HoldingSpec& spec, const CacheView& cache, const Batch& batch,
                  const int32_t* tokens, float* biases) override {
    cuda::hold_ratio(spec, cache.streams, batch, tokens, biases, stream_);
  }

  int decode_workers(const DecodeShape& shape) override { return cuda::decode_workers(shape); }
  void plan_decode(const CacheView& cache, const Batch& batch,
                   const DecodeWorkspace& workspace) override {
    cuda::plan_decode(cache.streams, batch, workspace, stream_);
  }
  void take_tokens(const DecodeShape& shape, const CacheView& cache, const Batch& batch, int layer,
                   const StepTokens& tokens, const RopeView& rope) override {
    cuda::take_tokens(shape, cache.pool, cache.stack, cache.streams, batch, layer, tokens, rope,
                      stream_);
  }
  void decode_attention(const DecodeShape& shape, const CacheView& cache, const Batch& batch,
                        int layer, const float* q, float scale, float* out,
                        const DecodeWorkspace& workspace) override {
    cuda::decode_attention(shape, cache.pool, cache.streams, batch, layer, q, scale, out, workspace,
                           stream_);
  }
  void take_prompt(const DecodeShape& shape, const CacheView& cache,
                   const PromptChunk& chunk) override {
    cuda::take_prompt(shape, cache.pool, cache.stack, cache.streams, chunk, stream_);
  }
  void prefill_attention(const DecodeShape& shape, const CacheView& cache, const PromptChunk& chunk,
                         const float* q, float scale, float* out) override {
    cuda::prefill_attention(shape, cache.pool, cache.streams, chunk, q, scale, out, stream_);
  }
  void evict_slots(const DecodeShape& shape, const CacheView& cache, const Batch& batch, int layer,
                   const EvictionStep& step) override {
    cuda::evict_slots(shape, cache, batch, layer, step, stream_);
  }
  void remember_queries(const CacheView& cache, const PromptChunk& chunk, const float* q) override {
    cuda::remember_queries(cache.streams, chunk, q, stream_);
  }
  void keep_of_prompt(DType slot_type, const CacheView& cache, const PromptEnd& end) override {
    cuda::keep_of_prompt(slot_type, cache, end, stream_);
  }
  void release_rows(const CacheView& cache, const Batch& batch, int layers) override {
    cuda::release_rows(cache.pool, cache.stack, cache.streams, batch, layers, stream_);
  }
  void collect_pages(const PageStack& stack) override { cuda::collect_pages(stack, stream_); }
  void copy_row(const CacheView& cache, const Batch& two_rows, int layers, int head_dim,
                bool share) override {
    cuda::copy_row(cache, two_rows, layers, head_dim, share, stream_);
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { cudaFree(memory); }
  };

  void multiply_widened(const Matrix& weights, const float* bias, const Numbers& x, int64_t rows,
                        float* y);

  OwnStream stream_;
  std::unique_ptr<std::byte, Free> workspace_;
  std::unique_ptr<std::byte, Free> widened_;  // a tile of weights; null until there is need of it
  Cublas blas_;
};

std::unique_ptr<Recording> CudaDevice::record(const std::function<void()>& launches) {
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a step");
  cudaGraph_t graph = nullptr;
  try {
    launches();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &graph), "recording a step");
  return std::make_unique<Graph>(stream_, graph);
}

void CudaDevice::linear(const Matrix& weights, const float* bias, const Numbers& x, int64_t rows,
                        float* y) {
  if (rows == 0) return;
  DMC_CHECK(x.type == row_type(weights.type));
  if (takes_few_rows(weights.type, weights.inputs, rows)) {
    each_few_rows(weights, bias, x, rows, y,
                  [&](const FewRows& part) { multiply_few_rows(weights.type, part, stream_); });
  } else if (weights.type == DType::kI8) {
    multiply_widened(weights, bias, x, rows, y);
  } else {
    if (bias != nullptr) spread_bias(bias, rows, weights.outputs, y, stream_);
    blas_.multiply({weights.type, weights.data, x.data, y, weights.outputs, weights.inputs, rows,
                    weights.outputs, bias != nullptr});
  }
}

// Weights of 8 bits as tiles of bf16, which are so small that the product finds them in the cache.
void CudaDevice::multiply_widened(const Matrix& weights, const float* bias, const Numbers& x,
                                  int64_t rows, float* y) {
  constexpr int64_t kTileBytes = int64_t{16} << 20, kNumber = 2;
  const int64_t row_bytes = weights.inputs * kNumber;
  const int64_t most = std::max<int64_t>(1, kTileBytes / row_bytes);  // outputs of a tile
  if (widened_ == nullptr) widened_.reset(allocate_memory(std::max(kTileBytes, row_bytes)));
  for (int64_t first = 0; first < weights.outputs; first += most) {
    const int64_t outputs = std::min(most, weights.outputs - first);
    widen(reinterpret_cast<const int8_t*>(weights.data) + first * weights.inputs,
          outputs * weights.inputs, widened_.get(), stream_);
    blas_.multiply({DType::kBF16, widened_.get(), x.data, y + first, outputs, weights.inputs, rows,
                    weights.outputs, false});
  }
  scale_outputs(weights.scales, bias, rows, weights.outputs, y, stream_);
}

}  // namespace

std::shared_ptr<Device> open_cuda_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    cudaGetLastError();
    throw invalid_argument("device",
                           "this machine has no GPU that CUDA can use; give --device cpu");
  }
  return std::make_shared<CudaDevice>();
}

}  // namespace dmc::kernels::cuda

#include "kernels/cuda/attention/prefill.h"

#include "kernels/cuda/attention/late_prompt.h"
#include "kernels/cuda/attention/prefill_kernel.cuh"
#include "kernels/cuda/lanes/scan.cuh"

namespace dmc::kernels::cuda {

// Compiled one by one (prefill_instance.cu.in).
#define DMC_SLOT_KERNEL(TYPE, DIM) extern template struct PrefillKernel<DType::TYPE, DIM>;
#include "kernels/cuda/attention/slot_kernels.inc"
#undef DMC_SLOT_KERNEL

namespace {

constexpr int kWarps = 4;           // of a block that gives a warp to each token
constexpr int kScanThreads = 1024;  // of a block that has a whole stream

struct TakeArguments {
  PagePool pool;
  PageStack stack;
  Streams streams;
  PromptChunk chunk;
};

__device__ int token_of_warp() {
  return static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kLanes);
}

__global__ void pool_kernel(const __grid_constant__ TakeArguments args) {
  const int token = token_of_warp();
  if (token >= args.chunk.tokens) return;
  pool_prompt_token<WarpTeam>(args.streams, args.chunk, token, static_cast<int>(blockIdx.y));
}

template <DType kType>
__global__ void lift_kernel(const __grid_constant__ TakeArguments args) {
  lift_marked<kType, WarpTeam>(args.pool, args.stack, args.streams, args.chunk,
                               static_cast<int>(blockIdx.x));
}

// The tokens first..last-1 of a stream that a thread of close_kernel has.
struct TokenRun {
  int head, first, last;

  // How many of them `fn` says yes to.
  template <class Fn>
  __device__ int32_t count(Fn&& fn) const {
    int32_t sum = 0;
    for (int t = first; t < last; ++t) sum += fn(t) ? 1 : 0;
    return sum;
  }
};

// What the tokens see of those that pass by; how many of these come back into the cache.
__device__ int32_t set_passing_of(const TakeArguments& args, const TokenRun& run) {
  const PromptChunk& chunk = args.chunk;
  const auto marks = [&](int t) { return chunk.marks(args.streams, t, run.head); };
  int32_t total = 0;
  const int32_t before = sum_before<kScanThreads, 1>(run.count(marks), &total);
  int32_t passing = chunk.passing.lifted[run.head] + before;
  for (int t = run.first; t < run.last; ++t) {
    passing += marks(t) ? 1 : 0;
    chunk.passing.to[chunk.row(t, run.head)] = passing;
  }
  __syncthreads();
  for (int t = run.first; t < run.last; ++t) {
    chunk.passing.from[chunk.row(t, run.head)] = passed_by(args.streams, chunk, t, run.head);
  }
  __syncthreads();
  return chunk.passing.left(chunk.row(chunk.tokens - 1, run.head));
}

// Counts the slots each token sees and takes the pages of a stream. A block has a stream, a thread
// a run of its tokens.
__global__ void __launch_bounds__(kScanThreads)
    close_kernel(const __grid_constant__ TakeArguments args) {
  __shared__ bool enough;
  const PromptChunk& chunk = args.chunk;
  const int head = static_cast<int>(blockIdx.x);
  const int64_t stream = chunk.stream(head);
  const int length = (chunk.tokens + kScanThreads - 1) / kScanThreads;
  const int first = min(static_cast<int>(threadIdx.x) * length, chunk.tokens);
  const TokenRun run{head, first, min(first + length, chunk.tokens)};
  const auto closes = [&](int t) { return chunk.closes(args.streams, t, head); };
  int32_t total = 0;
  const int32_t before = sum_before<kScanThreads>(run.count(closes), &total);
  int32_t seen = args.streams.closed[stream] + before;
  if (args.streams.late()) total += set_passing_of(args, run);
  if (threadIdx.x < kLanes) {
    const bool there = reserve_pages<WarpTeam>(args.pool, args.stack, args.streams, stream, total);
    if (threadIdx.x == 0) enough = there;
  }
  __syncthreads();
  for (int t = run.first; t < run.last; ++t) {
    seen += closes(t) ? 1 : 0;
    chunk.visible[chunk.row(t, head)] = seen;
    if (!enough) see_nothing(chunk, t, head);
  }
}

template <DType kType>
__global__ void write_kernel(const __grid_constant__ TakeArguments args) {
  const int token = token_of_warp(), head = static_cast<int>(blockIdx.y);
  if (token >= args.chunk.tokens) return;
  write_closed<kType, WarpTeam>(args.pool, args.streams, args.chunk, token, head);
  if (args.streams.late()) write_passing<kType, WarpTeam>(args.streams, args.chunk, token, head);
}

template <DType kType>
__global__ void finish_kernel(const __grid_constant__ TakeArguments args) {
  const int head = static_cast<int>(blockIdx.x);
  finish_prompt<WarpTeam>(args.streams, args.chunk, head);
  __syncwarp();
  if (args.streams.late()) {
    return_marked<kType, WarpTeam>(args.pool, args.streams, args.chunk, head);
  }
}

struct Entry {
  DType type;
  int head_dim;
  void (*lift)(TakeArguments);
  void (*write)(TakeArguments);
  void (*finish)(TakeArguments);
  void (*attend)(const PrefillArguments&, Stream);
};

constexpr Entry kKernels[] = {
#define DMC_SLOT_KERNEL(TYPE, DIM) \
  {DType::TYPE,                    \
   DIM,                            \
   lift_kernel<DType::TYPE>,       \
   write_kernel<DType::TYPE>,      \
   finish_kernel<DType::TYPE>,     \
   PrefillKernel<DType::TYPE, DIM>::launch},
#include "kernels/cuda/attention/slot_kernels.inc"
#undef DMC_SLOT_KERNEL
};

const Entry& kernel_for(const DecodeShape& shape) {
  for (const Entry& entry : kKernels) {
    if (entry.type == shape.slot_type && entry.head_dim == shape.head_dim) return entry;
  }
  throw invalid_argument("there is no CUDA prefill for slots of type " +
                         std::string(dtype_name(shape.slot_type)) + " with head size " +
                         std::to_string(shape.head_dim));
}

}  // namespace

void take_prompt(const DecodeShape& shape, const PagePool& pool, const PageStack& stack,
                 const Streams& streams, const PromptChunk& chunk, Stream stream) {
  DMC_CHECK(chunk.head_dim == shape.head_dim);
  if (chunk.tokens == 0) return;
  const TakeArguments args{pool, stack, streams, chunk};
  const auto heads = static_cast<unsigned>(chunk.kv_heads);
  const dim3 warps(static_cast<unsigned>((chunk.tokens + kWarps - 1) / kWarps), heads);
  const Grid by_token{warps, kWarps * kLanes};
  if (streams.late()) {
    launch("launching the lifting of marked slots", kernel_for(shape).lift, {heads, kLanes}, stream,
           args);
  }
  launch("launching the pooling of a prompt", pool_kernel, by_token, stream, args);
  launch("launching the count of its slots", close_kernel, {heads, kScanThreads}, stream, args);
  launch("launching the writing of its slots", kernel_for(shape).write, by_token, stream, args);
  launch("launching the end of a prompt", kernel_for(shape).finish, {heads, kLanes}, stream, args);
}

void prefill_attention(const DecodeShape& shape, const PagePool& pool, const Streams& streams,
                       const PromptChunk& chunk, const float* q, float scale, float* out,
                       Stream stream) {
  if (chunk.tokens == 0) return;
  kernel_for(shape).attend({pool, streams, chunk, q, scale * kLog2e, out, shape.group}, stream);
}

}  // namespace dmc::kernels::cuda

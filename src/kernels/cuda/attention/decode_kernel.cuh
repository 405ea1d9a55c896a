// The decode attention kernel. A worker is a block of 4 warps with a share of the plan (plan.h).
// The warps take the tiles of a piece in turn, each with its own running softmax, and meet only at
// the end of the piece.
//
// Memory latency is hidden by copies that run kStages - 1 tiles ahead, across the ends of pieces.
// At head size 128 in bf16 that is 2 blocks x 4 warps x 2 tiles x 8 KB = 128 KB under way on each
// multiprocessor of an H200, where about 30 KB would do for its bandwidth at its latency; the rest
// covers the merging of pieces.
#pragma once

#include "kernels/cuda/attention/accumulator.h"
#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/partial.h"
#include "kernels/cuda/lanes/warp.cuh"
#include "kernels/cuda/launch.h"

namespace dmc::kernels::cuda {

constexpr int kDecodeWarps = 4;

struct DecodeArguments {
  PagePool pool;
  Streams streams;
  Batch batch;
  int layer;
  const float* q;
  float scale;  // in log2 units
  float* out;
  int group;
  PlanView plan;
  int32_t* arrivals;
  float* partials;
};

// What a block keeps in shared memory. At head size 128 in 16 bits two blocks fit into the 228 KB
// of an H200's multiprocessor with 400 bytes to spare; on sm_80 one does. Tiles of f32 are so large
// that two of them have to do.
template <DType kType, int kDim>
struct DecodeShared {
  using Stage = TileStage<kType, kDim>;
  static constexpr int kStages = sizeof(Stage) <= 8192 ? 3 : 2;
  Stage stages[kDecodeWarps][kStages];
  PartialRow<kDim> rows[kDecodeWarps][kMaxGroup];
  float open_value[kDim], open_score[kMaxGroup];
  bool last_to_arrive;
};

static_assert(2 * (sizeof(DecodeShared<DType::kBF16, 128>) + 1024) <= 228 * 1024,
              "two blocks of the usual shape run on a multiprocessor of sm_90");

// The tiles of one warp, over all pieces of its worker. The page of the next tile is asked for one
// tile early, so that its copies need not wait for the page table.
template <DType kType, int kDim>
class TileWalk {
 public:
  __device__ TileWalk(const DecodeArguments& args, int warp)
      : args_(args), pieces_(args.plan, args.batch.items(), blockIdx.x), warp_(warp) {
    advance();
  }

  // Starts the copies of the next tile, if there is one.
  __device__ void copy_next(TileStage<kType, kDim>& stage) {
    if (tile_ >= end_) return;
    const int slot = tile_ * kTileSlots;
    const int valid = closed_ - slot < kTileSlots ? closed_ - slot : kTileSlots;
    const auto rows =
        tile_rows<kType, kDim>(args_.pool, page_, slot % args_.pool.page_slots, valid);
    const int lane = WarpTeam::lane();
    copy_keys<DeviceWarp>(rows, lane, stage);
    copy_values<DeviceWarp>(rows, lane, stage);
    advance();
  }

 private:
  __device__ void advance() {
    tile_ += kDecodeWarps;
    Piece piece;
    while (tile_ >= end_ && pieces_.next(piece)) {
      const int64_t stream = args_.batch.stream(args_.layer, piece.item);
      closed_ = args_.streams.closed[stream];
      table_ = args_.streams.table(stream);
      end_ = piece.last < tiles_of(closed_) ? piece.last : tiles_of(closed_);
      tile_ = piece.first + warp_;
    }
    if (tile_ < end_) page_ = table_[tile_ * kTileSlots / args_.pool.page_slots];
  }

  const DecodeArguments& args_;
  Pieces pieces_;
  const int warp_;
  int tile_ = 0, end_ = 0, closed_ = 0;
  int32_t page_ = 0;
  const int32_t* table_ = nullptr;
};

// What the open slot adds to a piece that starts its stream: its value and each query's score.
template <DType kType, int kDim>
__device__ void score_open_slot(const DecodeArguments& args, int64_t stream, const float* q,
                                int warp, DecodeShared<kType, kDim>& shared) {
  const float* const key = args.streams.open_key(stream, kDim);
  const float* const value = args.streams.open_value(stream, kDim);
  for (int i = static_cast<int>(threadIdx.x); i < kDim; i += kDecodeWarps * kLanes) {
    shared.open_value[i] = value[i];
  }
  for (int query = warp; query < args.group; query += kDecodeWarps) {
    float product = 0.0f;
    for (int i = WarpTeam::lane(); i < kDim; i += kLanes) product += q[query * kDim + i] * key[i];
    product = WarpTeam::sum(product);
    if (WarpTeam::lane() == 0) shared.open_score[query] = product * args.scale;
  }
}

// Where part `part` of a piece's stream lies (decode.h).
template <int kDim>
__device__ PartialRow<kDim>* part_rows(const DecodeArguments& args, const Piece& piece, int part) {
  const int64_t worker = piece.first_worker + part;
  auto* const rows = reinterpret_cast<PartialRow<kDim>*>(args.partials);
  return rows + (worker * 2 + (part == 0 ? 1 : 0)) * args.group;
}

// A row that another multiprocessor wrote: read past the L1 cache, which does not see that.
struct FreshRow {
  const float* out;
  float max, sum;
  __device__ float at(int channel) const { return __ldcg(out + channel); }
};

// Merges the warps' rows of a piece. A whole stream's result goes out; a part's waits in memory for
// the others, and whoever comes last merges them.
template <DType kType, int kDim>
__device__ void finish_piece(const DecodeArguments& args, const Piece& piece,
                             DecodeShared<kType, kDim>& shared) {
  constexpr int kThreads = kDecodeWarps * kLanes;
  const int numbers = args.group * kDim;
  float* const out = args.out + static_cast<int64_t>(piece.item) * numbers;
  PartialRow<kDim>* const mine = part_rows<kDim>(args, piece, piece.part);
  for (int n = static_cast<int>(threadIdx.x); n < numbers; n += kThreads) {
    const int query = n / kDim, channel = n % kDim;
    const int rows = kDecodeWarps + (piece.part == 0 ? 1 : 0);  // the open slot is the last
    const auto row = [&](int i) -> RowView {
      if (i < kDecodeWarps) return view_of(shared.rows[i][query]);
      return {shared.open_value, shared.open_score[query], 1.0f};
    };
    const MergedState state = merge_states<DeviceWarp>(rows, row);
    const float sum = merge_out<DeviceWarp>(rows, row, state, channel);
    if (piece.parts == 1) {
      out[n] = sum / state.sum;
      continue;
    }
    mine[query].out[channel] = sum;
    if (channel == 0) mine[query].max = state.max;
    if (channel == 0) mine[query].sum = state.sum;
  }
  if (piece.parts == 1) return;

  __threadfence();  // the part is in memory before its arrival is counted
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.last_to_arrive = atomicAdd(&args.arrivals[piece.item], 1) == piece.parts - 1;
  }
  __syncthreads();
  if (!shared.last_to_arrive) return;
  __threadfence();
  for (int n = static_cast<int>(threadIdx.x); n < numbers; n += kThreads) {
    const int query = n / kDim, channel = n % kDim;
    const auto row = [&](int part) -> FreshRow {
      const PartialRow<kDim>& at = part_rows<kDim>(args, piece, part)[query];
      return {at.out, __ldcg(&at.max), __ldcg(&at.sum)};
    };
    const MergedState state = merge_states<DeviceWarp>(piece.parts, row);
    out[n] = merge_out<DeviceWarp>(piece.parts, row, state, channel) / state.sum;
  }
  if (threadIdx.x == 0) args.arrivals[piece.item] = 0;  // for the next layer
}

template <DType kType, int kDim>
__global__ void __launch_bounds__(kDecodeWarps* kLanes, 2)
    decode_kernel(const __grid_constant__ DecodeArguments args) {
  auto& shared = shared_memory<DecodeShared<kType, kDim>>();
  constexpr int kStages = DecodeShared<kType, kDim>::kStages;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  TileWalk<kType, kDim> ahead(args, warp);
  for (int i = 0; i < kStages - 1; ++i) {
    ahead.copy_next(shared.stages[warp][i]);
    DeviceWarp::commit_copies();
  }
  int now = 0;  // the stage of the tile to take in; the one before it is free

  Pieces pieces(args.plan, args.batch.items(), blockIdx.x);
  for (Piece piece; pieces.next(piece);) {
    const int64_t stream = args.batch.stream(args.layer, piece.item);
    const int closed = args.streams.closed[stream];
    const float* const q = args.q + static_cast<int64_t>(piece.item) * args.group * kDim;
    Accumulator<DeviceWarp, kType, kDim, 1> state;
    state.set_queries([&](int n) { return n < args.group ? q + n * kDim : nullptr; });
    state.clear();
    if (piece.part == 0) score_open_slot(args, stream, q, warp, shared);
    const int end = piece.last < tiles_of(closed) ? piece.last : tiles_of(closed);
    for (int tile = piece.first + warp; tile < end; tile += kDecodeWarps) {
      DeviceWarp::wait_copies<kStages - 2>();
      const int free = now == 0 ? kStages - 1 : now - 1;
      ahead.copy_next(shared.stages[warp][free]);
      DeviceWarp::commit_copies();
      state.absorb(shared.stages[warp][now], args.scale,
                   [&](int, int i) { return tile * kTileSlots + i < closed; });
      now = now == kStages - 1 ? 0 : now + 1;
    }
    state.finish();
    PartialRow<kDim>* const rows = shared.rows[warp];
    state.each_state([&](int query, float max, float sum) {
      rows[query].max = max;
      rows[query].sum = sum;
    });
    state.each_out(
        [&](int query, int channel, float, float out) { rows[query].out[channel] = out; });
    __syncthreads();
    finish_piece(args, piece, shared);
    __syncthreads();  // the rows are free for the next piece
  }
}

// Of one slot type and head size; decode.cu holds the table of them.
template <DType kType, int kDim>
struct DecodeKernel {
  static constexpr int kThreads = kDecodeWarps * kLanes;
  static constexpr size_t kSharedBytes = sizeof(DecodeShared<kType, kDim>);

  static int blocks_at_once() {
    check(cudaFuncSetAttribute(decode_kernel<kType, kDim>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
          "setting the shared memory of decode attention");
    return blocks_on_device(decode_kernel<kType, kDim>, kThreads, kSharedBytes);
  }
  static void launch(const DecodeArguments& args, Stream stream) {
    const auto workers = static_cast<unsigned>(args.plan.max_workers);
    cuda::launch("launching decode attention", decode_kernel<kType, kDim>,
                 {workers, kThreads, kSharedBytes}, stream, args);
  }
};

}  // namespace dmc::kernels::cuda

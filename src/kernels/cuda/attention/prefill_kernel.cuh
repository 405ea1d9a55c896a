// The attention kernel of compressed prefill. A block has the rows (token, query head) of 128
// queries that share a KV head, 16 for each of 8 warps. Closed slots come through shared memory in
// groups of 4 tiles, two groups deep; all warps read a group, each with its own running softmax,
// which starts from the token's own partial mean. A query sees only the slots closed before it, so
// tiles past the last one that a warp's queries see are passed over: work falls with the
// compression ratio. With a policy that evicts late, the tokens that pass by come after the cache's
// slots in the same way; a query sees a window of them.
//
// mma.sync reaches about half of what sm_90's wgmma could; this is the simple kernel that is right
// on every GPU since sm_80.
#pragma once

#include "kernels/cuda/attention/accumulator.h"
#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/lanes/warp.cuh"
#include "kernels/cuda/launch.h"

namespace dmc::kernels::cuda {

constexpr int kPrefillWarps = 8;
constexpr int kPrefillTiles = kPrefillWarps / 2;  // of a group: a warp copies keys or values of one

struct PrefillArguments {
  PagePool pool;
  Streams streams;
  PromptChunk chunk;
  const float* q;
  float scale;  // in log2 units
  float* out;
  int group;
};

template <DType kType, int kDim>
struct PrefillShared {
  // Three bf16 parts of every f32 number leave registers for half as many queries.
  static constexpr int kGroups = kType == DType::kF32 ? 1 : 2;
  static constexpr int kQueries = 8 * kGroups;  // of a warp
  TileStage<kType, kDim> tiles[2][kPrefillTiles];
  float own_score[kPrefillWarps][kQueries];
  int32_t first[kPrefillWarps][kQueries], end[kPrefillWarps][kQueries];  // slots a query sees
};

// A row of slots that queries attend to, in pages of `pool`.
struct SlotRow {
  PagePool pool;
  const int32_t* table;  // of pages; null: they lie one behind the other
  int32_t first_page;
  const int32_t *from, *to;  // [tokens][kv_heads]: what a token sees of it; from null: all to `to`

  __device__ int32_t page(int n) const { return table != nullptr ? table[n] : first_page + n; }
};

// Of one head: the cache's closed slots, then the tokens that pass by.
__device__ inline SlotRow slot_row(const PrefillArguments& args, int head, bool passing) {
  if (!passing) {
    const int32_t* const table = args.streams.table(args.chunk.stream(head));
    return {args.pool, table, 0, nullptr, args.chunk.visible};
  }
  const PassingTokens& of = args.chunk.passing;
  return {of.pool, nullptr, head * of.pages, of.from, of.to};
}

// The rows of a block's queries and where they lie.
struct PrefillRows {
  const PrefillArguments& args;
  int head, rows, dim;

  __device__ bool exists(int row) const { return row < rows; }
  __device__ int token(int row) const { return row / args.group; }
  __device__ int64_t offset(int row) const {  // of its q and out
    const int64_t of_token = args.chunk.row(token(row), head) * args.group;
    return (of_token + row % args.group) * dim;
  }
  __device__ int64_t own(int row) const { return args.chunk.row(token(row), head) * dim; }
  // The slots that a row sees, first..end-1; both grow from row to row.
  __device__ int32_t first(const SlotRow& slots, int row) const {
    return exists(row) && slots.from != nullptr ? slots.from[args.chunk.row(token(row), head)] : 0;
  }
  __device__ int32_t end(const SlotRow& slots, int row) const {
    return exists(row) ? slots.to[args.chunk.row(token(row), head)] : 0;
  }
};

// Scores of a warp's queries with their own partial means.
template <int kDim, int kQueries>
__device__ void score_own(const PrefillRows& of, int first_row, float scale,
                          float (&score)[kQueries]) {
  for (int n = 0; n < kQueries; ++n) {
    const int row = first_row + n;
    float product = 0.0f;
    if (of.exists(row)) {
      const float* const q = of.args.q + of.offset(row);
      const float* const key = of.args.chunk.own_key + of.own(row);
      for (int i = WarpTeam::lane(); i < kDim; i += kLanes) product += q[i] * key[i];
    }
    product = WarpTeam::sum(product);
    if (WarpTeam::lane() == 0) score[n] = product * scale;
  }
  __syncwarp();
}

// Starts the copies of this warp's share of four tiles from `tile` on: the keys or the values of
// one. Slots from `end` on are read as zeros.
template <DType kType, int kDim>
__device__ void copy_group(const SlotRow& slots, int tile, int end, int warp,
                           TileStage<kType, kDim> (&tiles)[kPrefillTiles]) {
  const int slot = (tile + warp / 2) * kTileSlots;
  if (slot >= end) return;
  const int valid = end - slot < kTileSlots ? end - slot : kTileSlots;
  const int P = slots.pool.page_slots;
  const auto rows = tile_rows<kType, kDim>(slots.pool, slots.page(slot / P), slot % P, valid);
  if (warp % 2 == 0) {
    copy_keys<DeviceWarp>(rows, WarpTeam::lane(), tiles[warp / 2]);
  } else {
    copy_values<DeviceWarp>(rows, WarpTeam::lane(), tiles[warp / 2]);
  }
}

template <DType kType, int kDim>
__global__ void __launch_bounds__(kPrefillWarps* kLanes, 1)
    prefill_kernel(const __grid_constant__ PrefillArguments args) {
  using Shared = PrefillShared<kType, kDim>;
  auto& shared = shared_memory<Shared>();
  constexpr int kQueries = Shared::kQueries, kBlockRows = kPrefillWarps * kQueries;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int head = static_cast<int>(blockIdx.y);
  const PrefillRows of{args, head, args.chunk.tokens * args.group, kDim};
  // Later rows see more slots: the longest work first.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const int block_row = block * kBlockRows, first_row = block_row + warp * kQueries;
  const int block_last = min(block_row + kBlockRows, of.rows) - 1;
  const int last_row = min(first_row + kQueries, of.rows) - 1;

  score_own<kDim>(of, first_row, args.scale, shared.own_score[warp]);
  Accumulator<DeviceWarp, kType, kDim, Shared::kGroups> state;
  state.set_queries([&](int n) {
    return of.exists(first_row + n) ? args.q + of.offset(first_row + n) : nullptr;
  });
  state.start([&](int n) { return shared.own_score[warp][n]; },
              [&](int n) -> const float* {
                if (!of.exists(first_row + n)) return nullptr;
                return args.chunk.own_value + of.own(first_row + n);
              });
  const int rows_of_slots = args.chunk.passing.from != nullptr ? 2 : 1;
#pragma unroll 1
  for (int which = 0; which < rows_of_slots; ++which) {
    const SlotRow slots = slot_row(args, head, which == 1);
    const int begin = of.first(slots, block_row) / kTileSlots;  // tile, of the block
    const int end = of.end(slots, block_last);                  // slot
    // Of this warp, whose rows may not exist.
    const int first_tile = of.first(slots, first_row) / kTileSlots;
    const int end_tile = last_row >= first_row ? tiles_of(of.end(slots, last_row)) : 0;
    copy_group<kType, kDim>(slots, begin, end, warp, shared.tiles[0]);
    DeviceWarp::commit_copies();
    for (int n = WarpTeam::lane(); n < kQueries; n += kLanes) {
      shared.first[warp][n] = of.first(slots, first_row + n);
      shared.end[warp][n] = of.end(slots, first_row + n);
    }
    __syncwarp();
    int now = 0;
    for (int tile = begin; tile * kTileSlots < end; tile += kPrefillTiles, now ^= 1) {
      copy_group<kType, kDim>(slots, tile + kPrefillTiles, end, warp, shared.tiles[now ^ 1]);
      DeviceWarp::commit_copies();
      DeviceWarp::wait_copies<1>();
      __syncthreads();  // all warps' copies of this group are there
#pragma unroll 1
      for (int i = max(0, first_tile - tile); i < kPrefillTiles; ++i) {
        if (tile + i >= end_tile) break;
        const int slot = (tile + i) * kTileSlots;
        state.absorb(shared.tiles[now][i], args.scale, [&](int n, int row) {
          return slot + row >= shared.first[warp][n] && slot + row < shared.end[warp][n];
        });
      }
      __syncthreads();  // nobody reads it any more
    }
  }
  state.finish();
  state.each_out([&](int query, int channel, float sum, float out) {
    if (of.exists(first_row + query)) args.out[of.offset(first_row + query) + channel] = out / sum;
  });
}

// Of one slot type and head size; prefill.cu holds the table of them.
template <DType kType, int kDim>
struct PrefillKernel {
  static void launch(const PrefillArguments& args, Stream stream) {
    constexpr size_t kShared = sizeof(PrefillShared<kType, kDim>);
    constexpr int kRows = kPrefillWarps * PrefillShared<kType, kDim>::kQueries;
    check(cudaFuncSetAttribute(prefill_kernel<kType, kDim>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
          "setting the shared memory of prefill attention");
    const int rows = args.chunk.tokens * args.group;
    const dim3 grid(static_cast<unsigned>((rows + kRows - 1) / kRows),
                    static_cast<unsigned>(args.chunk.kv_heads));
    cuda::launch("launching prefill attention", prefill_kernel<kType, kDim>,
                 {grid, kPrefillWarps * kLanes, kShared}, stream, args);
  }
};

}  // namespace dmc::kernels::cuda

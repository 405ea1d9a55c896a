// The attention kernel of compressed prefill. A block has the rows (token, query head) of 128
// queries that share a KV head, 16 for each of 8 warps. Closed slots come through shared memory in
// groups of 4 tiles, two groups deep; all warps read a group, each with its own running softmax,
// which starts from the token's own partial mean. A query sees only the slots closed before it, so
// tiles past the last one that a warp's queries see are passed over: work falls with the
// compression ratio.
//
// mma.sync reaches about half of what sm_90's wgmma could; this is the simple kernel that is right
// on every GPU since sm_80.
#pragma once

#include "kernels/cuda/accumulator.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prefill.h"
#include "kernels/cuda/warp.cuh"

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
  int32_t visible[kPrefillWarps][kQueries];
};

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
  __device__ int32_t visible(int row) const {
    return exists(row) ? args.chunk.visible[args.chunk.row(token(row), head)] : 0;
  }
};

// Scores of a warp's queries with their own partial means, and what they see.
template <int kDim, int kQueries>
__device__ void score_own(const PrefillRows& of, int first_row, float scale,
                          float (&score)[kQueries], int32_t (&visible)[kQueries]) {
  for (int n = 0; n < kQueries; ++n) {
    const int row = first_row + n;
    float product = 0.0f;
    if (of.exists(row)) {
      const float* const q = of.args.q + of.offset(row);
      const float* const key = of.args.chunk.own_key + of.own(row);
      for (int i = WarpTeam::lane(); i < kDim; i += kLanes) product += q[i] * key[i];
    }
    product = WarpTeam::sum(product);
    if (WarpTeam::lane() == 0) {
      score[n] = product * scale;
      visible[n] = of.visible(row);
    }
  }
  __syncwarp();
}

// Starts the copies of this warp's share of group `group`: the keys or the values of one tile.
template <DType kType, int kDim>
__device__ void copy_group(const PrefillArguments& args, const int32_t* table, int group,
                           int visible, int warp, TileStage<kType, kDim> (&tiles)[kPrefillTiles]) {
  const int slot = (group * kPrefillTiles + warp / 2) * kTileSlots;
  if (slot >= visible) return;
  const int valid = visible - slot < kTileSlots ? visible - slot : kTileSlots;
  const int P = args.pool.page_slots;
  const auto rows = tile_rows<kType, kDim>(args.pool, table[slot / P], slot % P, valid);
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
  const int first_row = block * kBlockRows + warp * kQueries;
  const int block_end = min((block + 1) * kBlockRows, of.rows);
  const int visible = of.visible(block_end - 1);  // to the block; rows see ever more
  const int32_t* const table = args.streams.table(args.chunk.first_stream + head);

  copy_group<kType, kDim>(args, table, 0, visible, warp, shared.tiles[0]);
  DeviceWarp::commit_copies();
  score_own<kDim>(of, first_row, args.scale, shared.own_score[warp], shared.visible[warp]);
  Accumulator<DeviceWarp, kType, kDim, Shared::kGroups> state;
  state.set_queries([&](int n) {
    return of.exists(first_row + n) ? args.q + of.offset(first_row + n) : nullptr;
  });
  state.start([&](int n) { return shared.own_score[warp][n]; },
              [&](int n) -> const float* {
                if (!of.exists(first_row + n)) return nullptr;
                return args.chunk.own_value + of.own(first_row + n);
              });
  const int last_row = min(first_row + kQueries, of.rows) - 1;
  const int tiles = last_row >= first_row ? tiles_of(of.visible(last_row)) : 0;  // of this warp

  const int groups = (tiles_of(visible) + kPrefillTiles - 1) / kPrefillTiles;
  for (int group = 0; group < groups; ++group) {
    copy_group<kType, kDim>(args, table, group + 1, visible, warp, shared.tiles[(group + 1) % 2]);
    DeviceWarp::commit_copies();
    DeviceWarp::wait_copies<1>();
    __syncthreads();  // all warps' copies of this group are there
#pragma unroll 1
    for (int i = 0; i < kPrefillTiles; ++i) {
      const int tile = group * kPrefillTiles + i;
      if (tile >= tiles) break;
      state.absorb(shared.tiles[group % 2][i], args.scale,
                   [&](int n) { return shared.visible[warp][n] - tile * kTileSlots; });
    }
    __syncthreads();  // nobody reads it any more
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

// For tests: the decode attention kernel on emulated warps. Workers run one after another, in an
// order of the caller's choice, and the one that arrives last merges, as on the device.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "kernels/cuda/attention/accumulator.h"
#include "kernels/cuda/attention/host_plan.h"
#include "kernels/cuda/attention/partial.h"
#include "kernels/cuda/lanes/host_warp.h"

namespace dmc::kernels::cuda {

template <DType kType, int kDim>
class HostDecode {
 public:
  static constexpr int kWarps = 4;

  HostDecode(const PagePool& pool, const Streams& streams, const Batch& batch, int layer, int group,
             float scale, int32_t max_workers)
      : pool_(pool),
        streams_(streams),
        batch_(batch),
        layer_(layer),
        group_(group),
        scale_(scale * kLog2e),
        plan_(closed_now(), max_workers),
        arrived_(static_cast<size_t>(batch.items())),
        partials_(static_cast<size_t>(max_workers * 2 * group)) {}

  // The streams may have grown by one slot since the constructor made the plan.
  void attend(const float* q, float* out, std::span<const int> worker_order) {
    for (int worker : worker_order) {
      Pieces pieces(plan_.view(), batch_.items(), worker);
      for (Piece piece; pieces.next(piece);) attend_piece(piece, q, out);
    }
  }

 private:
  using Row = PartialRow<kDim>;

  std::vector<int32_t> closed_now() const {
    std::vector<int32_t> closed;
    for (int item = 0; item < batch_.items(); ++item) {
      closed.push_back(batch_.active(item) ? streams_.closed[batch_.stream(layer_, item)] : -1);
    }
    return closed;
  }

  void attend_piece(const Piece& piece, const float* all_q, float* all_out) {
    const int64_t stream = batch_.stream(layer_, piece.item);
    const float* const q = all_q + int64_t{piece.item} * group_ * kDim;
    std::vector<std::vector<Row>> rows;  // [row][query]
    for (int warp = 0; warp < kWarps; ++warp) rows.push_back(attend_tiles(piece, stream, q, warp));
    if (piece.part == 0) rows.push_back(open_rows(stream, q));
    const auto count = static_cast<int>(rows.size());
    for (int query = 0; query < group_; ++query) {
      const auto row = [&](int i) {
        return view_of(rows[static_cast<size_t>(i)][static_cast<size_t>(query)]);
      };
      Row& part = *(part_rows(piece, piece.part) + query);
      const MergedState state = merge_states<HostWarp>(count, row);
      for (int i = 0; i < kDim; ++i) part.out[i] = merge_out<HostWarp>(count, row, state, i);
      part.max = state.max;
      part.sum = state.sum;
    }
    int& arrived = arrived_[static_cast<size_t>(piece.item)];
    if (++arrived < piece.parts) return;
    arrived = 0;
    for (int query = 0; query < group_; ++query) {
      const auto row = [&](int part) { return view_of(part_rows(piece, part)[query]); };
      const MergedState state = merge_states<HostWarp>(piece.parts, row);
      for (int i = 0; i < kDim; ++i) {
        all_out[(int64_t{piece.item} * group_ + query) * kDim + i] =
            merge_out<HostWarp>(piece.parts, row, state, i) / state.sum;
      }
    }
  }

  std::vector<Row> attend_tiles(const Piece& piece, int64_t stream, const float* q, int warp) {
    Accumulator<HostWarp, kType, kDim, 1> state;
    state.set_queries([&](int n) { return n < group_ ? q + n * kDim : nullptr; });
    state.clear();
    const int closed = streams_.closed[stream];
    const int end = std::min(piece.last, tiles_of(closed));
    for (int tile = piece.first + warp; tile < end; tile += kWarps) {
      const int slot = tile * kTileSlots;
      const int32_t page = streams_.table(stream)[slot / pool_.page_slots];
      const auto tile_of_page = tile_rows<kType, kDim>(pool_, page, slot % pool_.page_slots,
                                                       std::min(kTileSlots, closed - slot));
      TileStage<kType, kDim> stage;
      HostWarp::each([&](int lane) {
        copy_keys<HostWarp>(tile_of_page, lane, stage);
        copy_values<HostWarp>(tile_of_page, lane, stage);
      });
      state.absorb(stage, scale_, [&](int, int i) { return slot + i < closed; });
    }
    state.finish();
    std::vector<Row> rows(8);
    state.each_state([&](int query, float max, float sum) {
      rows[static_cast<size_t>(query)].max = max;
      rows[static_cast<size_t>(query)].sum = sum;
    });
    state.each_out([&](int query, int channel, float, float out) {
      rows[static_cast<size_t>(query)].out[channel] = out;
    });
    return rows;
  }

  std::vector<Row> open_rows(int64_t stream, const float* q) const {
    std::vector<Row> rows(static_cast<size_t>(group_));
    for (int query = 0; query < group_; ++query) {
      float product = 0.0f;
      for (int i = 0; i < kDim; ++i) {
        product += q[query * kDim + i] * streams_.open_key(stream, kDim)[i];
        rows[static_cast<size_t>(query)].out[i] = streams_.open_value(stream, kDim)[i];
      }
      rows[static_cast<size_t>(query)].max = product * scale_;
      rows[static_cast<size_t>(query)].sum = 1.0f;
    }
    return rows;
  }

  Row* part_rows(const Piece& piece, int part) {
    const int64_t worker = piece.first_worker + part;
    return &partials_[static_cast<size_t>((worker * 2 + (part == 0 ? 1 : 0)) * group_)];
  }

  PagePool pool_;
  Streams streams_;
  Batch batch_;
  int layer_, group_;
  float scale_;
  HostPlan plan_;
  std::vector<int> arrived_;
  std::vector<Row> partials_;
};

}  // namespace dmc::kernels::cuda

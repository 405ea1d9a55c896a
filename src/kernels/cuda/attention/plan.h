// Which worker (thread block) of a decode step attends to which tiles. Streams differ in length, so
// their tiles are laid out in one row and the row is cut into shares of equal cost, wherever that
// falls. The plan of all layers is made by one launch before the first layer runs: a stream grows
// by at most one slot a step, so the number of its tiles is known up to a last one that may be
// empty.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cache/device_cache.h"

namespace dmc::kernels::cuda {

// What taking up a stream costs, in tiles: its queries are loaded and its partial results merged.
constexpr int kStreamCost = 3;
// Tiles a worker should have at least: one for each of its warps.
constexpr int kLeastShare = 4;

// The place in front of a tile of a stream.
struct Cut {
  int32_t item;
  int32_t tile;
};

// The plan of one layer. `starts` gives the cost of all streams before each.
struct PlanView {
  int32_t* starts;  // [items + 1]
  Cut* cuts;        // [workers + 1]: worker w has what lies from cuts[w] to cuts[w + 1]
  int32_t max_workers;
};

DMC_HOST_DEVICE int tiles_of(int64_t slots) {
  return static_cast<int>((slots + kTileSlots - 1) / kTileSlots);
}

// Every active stream has at least one tile, so that somebody attends to its open slot.
DMC_HOST_DEVICE int planned_tiles(int32_t closed_before_step) {
  return tiles_of(int64_t{closed_before_step} + 1);
}

DMC_HOST_DEVICE int64_t workers_used(int64_t total_cost, int64_t max_workers) {
  const int64_t useful = total_cost / kLeastShare > 1 ? total_cost / kLeastShare : 1;
  return useful < max_workers ? useful : max_workers;
}

// The cost in front of worker w's share; w = workers: all of it.
DMC_HOST_DEVICE int64_t share_start(int64_t worker, int64_t workers, int64_t total_cost) {
  return worker * total_cost / workers;
}

// The last worker whose share starts at or before `cost`: the one that has what lies there.
DMC_HOST_DEVICE int64_t worker_at(int64_t cost, int64_t workers, int64_t total_cost) {
  return ((cost + 1) * workers - 1) / total_cost;
}

// The first worker whose share starts at or behind `cost`.
DMC_HOST_DEVICE int64_t first_worker_from(int64_t cost, int64_t workers, int64_t total_cost) {
  return cost == 0 ? 0 : worker_at(cost - 1, workers, total_cost) + 1;
}

// Sets the cuts that fall into item `item`, whose cost lies from `start` to `end`.
DMC_HOST_DEVICE void cut_item(int32_t item, int64_t start, int64_t end, int64_t workers,
                              int64_t total_cost, Cut* cuts) {
  const int64_t last = first_worker_from(end, workers, total_cost);
  for (int64_t w = first_worker_from(start, workers, total_cost); w < last; ++w) {
    const int64_t tile = share_start(w, workers, total_cost) - start - kStreamCost;
    cuts[w] = {item, static_cast<int32_t>(tile > 0 ? tile : 0)};
  }
}

// A worker's part of one stream, in planned tiles.
struct Piece {
  int item;
  int first, last;       // tiles
  int part, parts;       // this piece's number among all of the stream's
  int64_t first_worker;  // that has part 0
};

// Walks over a worker's pieces.
class Pieces {
 public:
  DMC_HOST_DEVICE Pieces(const PlanView& plan, int items, int64_t worker)
      : plan_(plan), items_(items), total_(plan.starts[items]) {
    workers_ = total_ > 0 ? workers_used(total_, plan.max_workers) : 0;
    if (worker >= workers_) {
      next_ = {items, 0};
      end_ = next_;
      return;
    }
    worker_ = worker;
    next_ = plan.cuts[worker];
    end_ = plan.cuts[worker + 1];
  }

  // The next piece, or false. Streams without cost (rows of the batch that are not in use) are
  // passed over.
  DMC_HOST_DEVICE bool next(Piece& piece) {
    while (next_.item < end_.item || (next_.item == end_.item && next_.tile < end_.tile)) {
      const int item = next_.item;
      const int64_t start = plan_.starts[item], cost = plan_.starts[item + 1] - start;
      const int tiles = static_cast<int>(cost) - kStreamCost;
      const int first = next_.tile, last = item == end_.item ? end_.tile : tiles;
      next_ = {item + 1, 0};
      if (cost == 0) continue;
      const int64_t from = worker_at(start + kStreamCost, workers_, total_);
      const int64_t to = worker_at(start + cost - 1, workers_, total_);
      piece = {item, first, last, static_cast<int>(worker_ - from), static_cast<int>(to - from + 1),
               from};
      return true;
    }
    return false;
  }

 private:
  PlanView plan_;
  int items_;
  int64_t total_, workers_ = 0, worker_ = 0;
  Cut next_{}, end_{};
};

}  // namespace dmc::kernels::cuda

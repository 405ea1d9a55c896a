// The plan of a decode step as one thread makes it: every tile in exactly one share, shares of
// equal cost, and each worker's idea of who else has parts of its streams.
#include "kernels/cuda/attention/plan.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/attention/host_plan.h"

namespace dmc::kernels::cuda {
namespace {

// What the workers before have had of a stream.
struct Seen {
  int tiles = 0, pieces = 0, parts = 0;
};

void expect_good_plan(const std::vector<int32_t>& closed, int32_t max_workers) {
  HostPlan plan(closed, max_workers);
  const auto items = static_cast<int>(closed.size());
  std::vector<Seen> seen(closed.size());
  int64_t most = 0;
  for (int64_t worker = 0; worker < max_workers; ++worker) {
    Pieces pieces(plan.view(), items, worker);
    int64_t share = 0;
    for (Piece piece; pieces.next(piece);) {
      ASSERT_GE(closed[static_cast<size_t>(piece.item)], 0) << "a row that is not in use";
      Seen& stream = seen[static_cast<size_t>(piece.item)];
      ASSERT_EQ(piece.first, stream.tiles) << "item " << piece.item;
      ASSERT_EQ(piece.part, stream.pieces++);
      ASSERT_EQ(piece.first_worker + piece.part, worker);
      ASSERT_LT(piece.first, piece.last);
      stream.parts = piece.parts;
      stream.tiles = piece.last;
      share += piece.last - piece.first + (piece.first == 0 ? kStreamCost : 0);
    }
    most = std::max(most, share);
  }
  int64_t total = 0;
  for (size_t item = 0; item < closed.size(); ++item) {
    if (closed[item] < 0) continue;
    ASSERT_EQ(seen[item].tiles, planned_tiles(closed[item])) << "item " << item;
    ASSERT_EQ(seen[item].pieces, seen[item].parts) << "item " << item;
    total += planned_tiles(closed[item]) + kStreamCost;
  }
  // What a cut inside the cost of taking up a stream rounds away is at most that cost.
  if (total > 0) {
    const int64_t workers = workers_used(total, max_workers);
    EXPECT_LE(most, total / workers + 1 + kStreamCost);
  }
}

TEST(CudaPlan, EveryTileIsInOneShareAndSharesAreEqual) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    std::vector<int32_t> closed(1 + rng.below(seed % 7 == 0 ? 2000 : 40));
    const uint64_t longest = 1 + rng.below(seed % 3 == 0 ? 20 : 5000);
    for (int32_t& slots : closed) {
      slots = rng.below(10) == 0 ? -1 : static_cast<int32_t>(rng.below(longest));
    }
    expect_good_plan(closed, static_cast<int32_t>(1 + rng.below(seed % 2 == 0 ? 300 : 7)));
    if (HasFatalFailure()) return;
  }
}

TEST(CudaPlan, OddShapes) {
  expect_good_plan({}, 4);
  expect_good_plan({-1, -1}, 4);              // nothing to do
  expect_good_plan({0}, 264);                 // one empty stream: its open slot still counts
  expect_good_plan({15, 16, 17, 31, 32}, 3);  // around the edge of a tile
  expect_good_plan({1 << 20}, 264);           // one very long stream
  expect_good_plan(std::vector<int32_t>(8192, 511), 264);
}

}  // namespace
}  // namespace dmc::kernels::cuda

#include "our_attention.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "arena.h"
#include "base/rng.h"
#include "kernels/attention.h"

namespace dmc::peers {
namespace {

constexpr int kPageSlots = 16;  // the cache's default
constexpr int kRun = 4;         // pages that cache::PagePool hands out side by side
constexpr int64_t kLine = 64;   // pages start at one

int64_t pages_per_stream(const Problem& problem) {
  constexpr int64_t kRunSlots = int64_t{kPageSlots} * kRun;
  return (problem.slots + kRunSlots - 1) / kRunSlots * kRun;
}

// Ids of `count` pages: runs in random order, as after a long life of the cache.
std::vector<int32_t> scattered_runs(int64_t count) {
  std::vector<int32_t> runs(static_cast<size_t>(count / kRun));
  std::iota(runs.begin(), runs.end(), 0);
  std::shuffle(runs.begin(), runs.end(), Rng(/*seed=*/2));
  std::vector<int32_t> pages;
  for (int32_t run : runs) {
    for (int32_t i = 0; i < kRun; ++i) pages.push_back(run * kRun + i);
  }
  return pages;
}

class OurAttention : public Attention {
 public:
  OurAttention(const Problem& problem, DType format, bool huge_pages)
      : problem_(problem),
        format_{kPageSlots, problem.head_dim, format},
        arena_(static_cast<size_t>(page_count()) * page_bytes(), huge_pages),
        queries_(floats(problem.layers * problem.query_heads)),
        outputs_(queries_.size()),
        open_(floats(2 * problem.layers * problem.kv_heads)) {
    for (int64_t i = 0; i < page_count(); ++i) {
      pages_.push_back(arena_.take(page_bytes()));
    }
    table_ = scattered_runs(page_count());
    for (int layer = 0; layer < problem.layers; ++layer) fill(layer);
  }

  void step() override {
    const auto streams = static_cast<size_t>(problem_.kv_heads);
    for (size_t layer = 0; layer < static_cast<size_t>(problem_.layers); ++layer) {
      kernels::decode_attention(pool(), std::span(items_).subspan(layer * streams, streams),
                                problem_.group(), problem_.scale());
    }
  }

  std::span<const float> output(int layer) const override {
    const size_t count = floats(problem_.query_heads);
    return std::span(outputs_).subspan(static_cast<size_t>(layer) * count, count);
  }

 private:
  size_t floats(int rows) const {
    return static_cast<size_t>(rows) * static_cast<size_t>(problem_.head_dim);
  }
  size_t page_bytes() const {
    return static_cast<size_t>((format_.bytes() + kLine - 1) / kLine * kLine);
  }
  int64_t page_count() const {
    return problem_.layers * problem_.kv_heads * pages_per_stream(problem_);
  }
  kernels::PoolView pool() const { return {pages_.data(), format_}; }

  // The newest token is in the open slot, all others are closed.
  void fill(int layer) {
    const int d = problem_.head_dim, group = problem_.group();
    const int64_t closed = problem_.slots - 1;
    std::vector<float> key(floats(1)), value(floats(1));
    for (int head = 0; head < problem_.kv_heads; ++head) {
      const int stream = layer * problem_.kv_heads + head;
      const int32_t* const pages = table_.data() + stream * pages_per_stream(problem_);
      for (int64_t slot = 0; slot < closed; ++slot) {
        fill_row(problem_, Row::kKey, layer, head, slot, key.data());
        fill_row(problem_, Row::kValue, layer, head, slot, value.data());
        kernels::write_slot(pool(), pages[slot / kPageSlots], slot % kPageSlots, key.data(),
                            value.data());
      }
      float* const open = open_.data() + 2 * stream * d;
      fill_row(problem_, Row::kKey, layer, head, closed, open);
      fill_row(problem_, Row::kValue, layer, head, closed, open + d);
      float* const q = queries_.data() + stream * group * d;
      for (int g = 0; g < group; ++g) {
        fill_row(problem_, Row::kQuery, layer, head * group + g, 0, q + g * d);
      }
      items_.push_back({pages, closed, open, open + d, q, outputs_.data() + stream * group * d});
    }
  }

  Problem problem_;
  kernels::PageFormat format_;
  Arena arena_;
  std::vector<std::byte*> pages_;  // by page id
  std::vector<int32_t> table_;     // of all streams, one after the other
  std::vector<float> queries_, outputs_, open_;
  std::vector<kernels::DecodeItem> items_;  // [layers][kv_heads]
};

}  // namespace

std::unique_ptr<Attention> our_attention(const Problem& problem, DType format, bool huge_pages) {
  return std::make_unique<OurAttention>(problem, format, huge_pages);
}

}  // namespace dmc::peers

#include "runtime/device/sequence_table.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "base/human.h"
#include "kernels/slot_page.h"

namespace dmc::runtime {
namespace {

namespace gpu = kernels::cuda;

constexpr double kShareOfMemory = 0.9;  // that pages may take of what is left
constexpr int kPageSlots = gpu::kTileSlots;

kernels::PageFormat page_format(const SequenceTableShape& shape) {
  return {kPageSlots, shape.head_dim, shape.slot_type};
}

// Closed ones: each token makes one, and whoever evicts does so once it is there.
int64_t most_slots(const SequenceTableShape& shape) {
  return shape.most_slots > 0 ? std::min(shape.most_slots, shape.max_positions)
                              : shape.max_positions;
}

}  // namespace

SequenceTable::SequenceTable(gpu::Device& device, const SequenceTableShape& shape)
    : device_(device),
      shape_(shape),
      max_pages_((most_slots(shape) + kPageSlots - 1) / kPageSlots),
      closed_(device, streams()),
      tables_(device, streams() * max_pages_),
      open_count_(device, streams()),
      open_head_(device, streams()),
      counters_(device, 3),
      some_rows_(device, 2) {
  const int64_t capacity = std::max(1, shape.window);
  open_weights_ = Buffer<float>(device, streams() * capacity);
  open_pairs_ = Buffer<float>(device, streams() * (capacity + 1) * 2 * shape.head_dim);
  if (shape.delay >= 0) {
    mark_count_ = Buffer<int32_t>(device, streams());
    mark_head_ = Buffer<int32_t>(device, streams());
    marks_ = Buffer<gpu::Mark>(device, streams() * view().streams.mark_capacity());
  }
  if (shape.most_slots > 0) {
    const int64_t capacity_of_stats = view().streams.stats_capacity(kPageSlots);
    stats_ = Buffer<policy::SlotStats>(device, streams() * capacity_of_stats);
  }
  if (shape.observes > 0) {
    observers_ = Buffer<float>(device, streams() * shape.observes * shape.query_floats);
    observed_ = Buffer<int32_t>(device, streams());
  }
  const int64_t page_bytes = page_format(shape).bytes();
  const int64_t pages = shape.pages > 0 ? shape.pages : pages_that_fit(page_bytes);
  std::vector<int32_t> ids(static_cast<size_t>(pages));
  std::iota(ids.rbegin(), ids.rend(), 0);  // so that page 0 is taken first
  free_ = Buffer<int32_t>(device, std::span<const int32_t>(ids));
  references_ = Buffer<int32_t>(device, pages);
  returned_ = Buffer<int32_t>(device, pages);
  memory_ = Buffer<std::byte>(device, pages * page_bytes);
  counters_.upload(std::array{static_cast<int32_t>(pages)});
  for (int row = shape.rows - 1; row >= 0; --row) free_rows_.push_back(row);
}

int64_t SequenceTable::pages_that_fit(int64_t page_bytes) const {
  const int64_t wanted =
      std::min<int64_t>(streams() * max_pages_, std::numeric_limits<int32_t>::max());
  const auto room =
      static_cast<int64_t>(kShareOfMemory * static_cast<double>(device_.bytes_left())) /
      (page_bytes +
       int64_t{3 * sizeof(int32_t)});  // and its places in free_, references_, returned_
  const int64_t least = int64_t{shape_.layers} * shape_.kv_heads;
  if (room < least) {
    throw exhausted("the device has " + human_bytes(static_cast<double>(device_.bytes_left())) +
                    " left for the cache, which is less than a page of " +
                    std::to_string(page_bytes) + " bytes for each KV head of one sequence");
  }
  return std::min(wanted, room);
}

const SequenceTable::Sequence& SequenceTable::find(cache::SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  DMC_CHECK(found != sequences_.end());
  return found->second;
}

cache::SequenceId SequenceTable::add() {
  if (free_rows_.empty()) {
    throw exhausted("the device's cache has room for " + std::to_string(shape_.rows) +
                    " sequences at a time, and all are in use");
  }
  sequences_[next_] = {free_rows_.back(), 0};
  free_rows_.pop_back();
  return next_++;
}

gpu::Batch SequenceTable::batch_of(std::span<const int32_t> rows) {
  some_rows_.upload(rows);
  return {some_rows_.get(), static_cast<int>(rows.size()), shape_.kv_heads, shape_.rows};
}

cache::SequenceId SequenceTable::add_copy(cache::SequenceId parent, bool share) {
  const cache::SequenceId child = add();
  sequences_[child].length = find(parent).length;
  device_.copy_row(view(), batch_of(std::array{row(parent), row(child)}), shape_.layers,
                   shape_.head_dim, share);
  return child;
}

cache::SequenceId SequenceTable::fork(cache::SequenceId parent) { return add_copy(parent, true); }

cache::SequenceId SequenceTable::copy(cache::SequenceId parent) {
  const cache::SequenceId child = add_copy(parent, false);
  try {
    require_no_refusal();
  } catch (...) {
    release(child);
    throw;
  }
  return child;
}

void SequenceTable::release(cache::SequenceId sequence) {
  const int row = find(sequence).row;
  device_.release_rows(view(), batch_of(std::array{row}), shape_.layers);
  device_.collect_pages(view().stack);
  free_rows_.push_back(row);
  sequences_.erase(sequence);
}

void SequenceTable::advance(cache::SequenceId sequence, int64_t tokens) {
  DMC_CHECK(sequences_.contains(sequence));
  sequences_[sequence].length += tokens;
}

std::vector<int64_t> SequenceTable::slots(cache::SequenceId sequence) const {
  const Sequence& of = find(sequence);
  const std::vector<int32_t> closed = closed_.download();
  std::vector<int64_t> slots;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      const int64_t stream = (int64_t{layer} * shape_.rows + of.row) * shape_.kv_heads + head;
      slots.push_back(closed[static_cast<size_t>(stream)] + (of.length > 0 ? 1 : 0));
    }
  }
  return slots;
}

int64_t SequenceTable::bytes() const {
  const std::vector<int32_t> counters = counters_.download();
  const int64_t in_use = pages() - counters[0] - counters[2];
  const auto active = static_cast<int64_t>(sequences_.size());
  const int64_t state = open_weights_.size() + open_pairs_.size() + tables_.size() +
                        2 * marks_.size() + observers_.size() +
                        stats_.size() * static_cast<int64_t>(sizeof(policy::SlotStats)) / 4;
  return in_use * page_format(shape_).bytes() + 4 * state / shape_.rows * active;
}

void SequenceTable::require_no_refusal() {
  if (counters_.download()[1] == 0) return;
  counters_.upload(std::array{0}, 1);
  throw exhausted("the cache's pages ran out: all " + std::to_string(pages()) +
                  " are in use; release sequences, or compress further");
}

gpu::CacheView SequenceTable::view() const {
  int32_t* const counters = counters_.get();
  return {{memory_.get(), page_format(shape_).bytes(), kPageSlots},
          {free_.get(), counters, counters + 1, references_.get(), returned_.get(), counters + 2},
          {closed_.get(), tables_.get(), open_count_.get(), open_head_.get(), open_weights_.get(),
           open_pairs_.get(), max_pages_, shape_.window, shape_.delay, mark_count_.get(),
           mark_head_.get(), marks_.get(), stats_.get(), shape_.observes, shape_.query_floats,
           observers_.get(), observed_.get()}};
}

}  // namespace dmc::runtime

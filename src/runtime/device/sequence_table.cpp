#include "runtime/device/sequence_table.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

#include "base/human.h"
#include "cache/page_demand.h"
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
  free_pages_ = pages;
  for (int row = shape.rows - 1; row >= 0; --row) free_rows_.push_back(row);
}

int64_t SequenceTable::pages_that_fit(int64_t page_bytes) const {
  // All rows at full length; and what forks may all copy at once, though the last of them need not.
  const int64_t copies = shape_.drops() ? max_pages_ : 1;
  const int64_t wanted = std::min<int64_t>(
      streams() * max_pages_ + streams() / shape_.rows * (shape_.rows / 2) * copies,
      std::numeric_limits<int32_t>::max());
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
  const auto streams_of_one = static_cast<size_t>(shape_.layers * shape_.kv_heads);
  sequences_[next_] = {.row = free_rows_.back(), .closed = std::vector<int32_t>(streams_of_one)};
  free_rows_.pop_back();
  return next_++;
}

gpu::Batch SequenceTable::batch_of(std::span<const int32_t> rows) {
  some_rows_.upload(rows);
  return {some_rows_.get(), static_cast<int>(rows.size()), shape_.kv_heads, shape_.rows};
}

cache::SequenceId SequenceTable::add_copy(cache::SequenceId parent, bool share) {
  const cache::SequenceId child = add();
  const Sequence& from = find(parent);
  Sequence& to = sequences_[child];
  to.length = from.length;
  to.in_prompt = from.in_prompt;
  to.closed = from.closed;
  if (share) to.kin = from.kin;
  device_.copy_row(view(), batch_of(std::array{from.row, to.row}), shape_.layers, shape_.head_dim,
                   share);
  return child;
}

cache::SequenceId SequenceTable::fork(cache::SequenceId parent) { return add_copy(parent, true); }

cache::SequenceId SequenceTable::copy(cache::SequenceId parent) {
  int64_t pages = 0;
  for (const int32_t closed : find(parent).closed) pages += cache::pages_of(closed, kPageSlots);
  if (pages > free_pages()) {
    throw exhausted("a copy of the sequence takes " + std::to_string(pages) +
                    " pages of the cache, and " + std::to_string(free_pages()) + " are free");
  }
  const cache::SequenceId child = add_copy(parent, false);
  settle();
  return child;
}

void SequenceTable::release(cache::SequenceId sequence) {
  const int row = find(sequence).row;
  device_.release_rows(view(), batch_of(std::array{row}), shape_.layers);
  device_.collect_pages(view().stack);
  free_rows_.push_back(row);
  sequences_.erase(sequence);
  released_ = true;
}

void SequenceTable::advance(cache::SequenceId sequence, int64_t tokens) {
  sequences_.at(sequence).length += tokens;
}

std::vector<int64_t> SequenceTable::slots(cache::SequenceId sequence) const {
  const Sequence& of = find(sequence);
  const std::vector<int32_t> closed = closed_.download();
  std::vector<int64_t> slots;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      const auto at = static_cast<size_t>(stream(of, layer, head));
      slots.push_back(closed[at] + (of.length > 0 ? 1 : 0));
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

int64_t SequenceTable::free_pages() const {
  if (std::exchange(released_, false)) {
    const std::vector<int32_t> counters = counters_.download();
    free_pages_ = counters[0] + counters[2];
  }
  return free_pages_;
}

// Of the pages that a sequence may write on, those that others may hold too: as far as the host
// knows all while there is kin; if that, beside `growth`, may be too much for what is free, as the
// tables say, which are large.
int64_t SequenceTable::copies(const Sequence& of, int64_t growth) const {
  if (of.kin.use_count() == 1) return 0;
  int64_t most = 0;
  for (const int64_t closed : of.closed) most += writable_pages(closed);
  if ((growth + most) * shape_.rows <= free_pages()) return most;
  const std::vector<int32_t> tables = tables_.download(), references = references_.download();
  int64_t shared = 0;
  for (int64_t i = 0; i < std::ssize(of.closed); ++i) {
    const int64_t closed = of.closed[static_cast<size_t>(i)];
    const int64_t end = cache::pages_of(closed, kPageSlots);
    const int64_t row = stream(of, static_cast<int>(i / shape_.kv_heads), 0) + i % shape_.kv_heads;
    for (int64_t n = end - writable_pages(closed); n < end; ++n) {
      const int32_t page = tables[static_cast<size_t>(row * max_pages_ + n)];
      shared += references[static_cast<size_t>(page)] > 1 ? 1 : 0;
    }
  }
  return shared;
}

// Of a stream's last pages, those that it may write on.
int64_t SequenceTable::writable_pages(int64_t closed) const {
  if (shape_.drops()) return cache::pages_of(closed, kPageSlots);
  return closed % kPageSlots != 0 ? 1 : 0;
}

int64_t SequenceTable::pages_of(cache::SequenceId sequence) const {
  int64_t pages = 0;
  for (const int64_t closed : find(sequence).closed) pages += cache::pages_of(closed, kPageSlots);
  return pages;
}

int64_t SequenceTable::pages_for(cache::SequenceId sequence, int64_t tokens,
                                 int64_t at_once) const {
  const Sequence& of = find(sequence);
  const int64_t most = shape_.most_slots > 0 ? most_slots(shape_) : shape_.max_positions;
  int64_t growth = 0;
  for (const int64_t closed : of.closed) {
    growth += cache::pages_to_grow(closed, tokens, kPageSlots, most);
    if (shape_.delay < 0 || std::min(tokens, at_once) == 1) continue;
    // What a late policy gives back in a chunk cannot be taken again before the next one.
    growth += cache::pages_of(std::min<int64_t>(closed + tokens, shape_.delay + 1), kPageSlots);
  }
  return growth + copies(of, growth);
}

void SequenceTable::settle() {
  std::array<int32_t, 3> counters{};
  std::vector<int32_t> closed(static_cast<size_t>(closed_.size()));
  device_.copy_out(counters.data(), counters_.get(), sizeof counters);
  device_.copy_out(closed.data(), closed_.get(), closed_.size() * int64_t{sizeof(int32_t)});
  device_.wait();
  DMC_CHECK(counters[1] == 0);  // slots refused for want of a page
  free_pages_ = counters[0] + counters[2];
  released_ = false;
  for (auto& [id, of] : sequences_) {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const auto first = closed.begin() + stream(of, layer, 0);
      std::copy_n(first, shape_.kv_heads, of.closed.begin() + layer * shape_.kv_heads);
    }
  }
}

bool SequenceTable::in_prompt(cache::SequenceId sequence) const {
  return shape_.observes > 0 && find(sequence).in_prompt;
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

#include "cache/page_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"

namespace dmc::cache {
namespace {

constexpr int64_t kChunkBytes = int64_t{2} << 20;  // one huge page
constexpr int64_t kLine = 64;

}  // namespace

PagePool::PagePool(const kernels::PageFormat& format, int64_t max_pages)
    : format_(format), max_pages_(max_pages > 0 ? max_pages : std::numeric_limits<int32_t>::max()) {
  DMC_CHECK(format.page_slots > 0 && format.head_dim > 0);
}

void PagePool::grow() {
  const int64_t stride = (format_.bytes() + kLine - 1) / kLine * kLine;
  const int64_t fitting = std::max<int64_t>(kRun, kChunkBytes / stride / kRun * kRun);
  const int64_t count = std::min(fitting, max_pages_ - pages_total());
  if (count <= 0) {
    throw exhausted("the KV cache is full: all of its " + std::to_string(max_pages_) +
                    " pages are in use");
  }
  chunks_.push_back(allocate_huge(count * stride));
  for (int64_t i = 0; i < count; ++i) {
    const auto page = static_cast<int32_t>(pages_.size());
    if (page % kRun == 0) {
      free_runs_.push_back(page);
      taken_in_run_.push_back(0);
    }
    pages_.push_back(chunks_.back().get() + i * stride);
    references_.push_back(0);
  }
}

int32_t PagePool::hand_out(int32_t page) {
  references_[static_cast<size_t>(page)] = 1;
  ++taken_in_run_[static_cast<size_t>(run_of(page))];
  ++in_use_;
  return page;
}

int32_t PagePool::take(int32_t previous) {
  const int32_t next = previous + 1;
  if (previous >= 0 && next % kRun != 0 && next < pages_total() && references(next) == 0) {
    return hand_out(next);
  }
  if (const int32_t first = pop_free_run(); first >= 0) return hand_out(first);
  // Every run has an owner. A new chunk, unless too much is held in reserve already.
  const int64_t reserve = pages_total() - in_use_;
  if (reserve == 0 || (4 * reserve <= pages_total() && pages_total() < max_pages_)) {
    grow();
    return hand_out(pop_free_run());
  }
  return hand_out(pop_free_page());
}

// The first page of a run of which none is taken; -1 if there is none.
int32_t PagePool::pop_free_run() {
  while (!free_runs_.empty()) {
    const int32_t first = free_runs_.back();
    free_runs_.pop_back();
    if (taken_in_run_[static_cast<size_t>(run_of(first))] == 0) return first;
  }
  return -1;
}

// Any free page: somebody's reserve. There must be one.
int32_t PagePool::pop_free_page() {
  for (;;) {
    while (!free_pages_.empty()) {
      const int32_t page = free_pages_.back();
      free_pages_.pop_back();
      if (references(page) == 0) return page;
    }
    for (int32_t page = 0; page < static_cast<int32_t>(pages_total()); ++page) {
      if (references(page) == 0) free_pages_.push_back(page);
    }
    DMC_CHECK(!free_pages_.empty());
  }
}

int32_t PagePool::writable(int32_t page) {
  if (references(page) == 1) return page;
  const int32_t copy = take();
  std::memcpy(pages_[static_cast<size_t>(copy)], pages_[static_cast<size_t>(page)],
              static_cast<size_t>(format_.bytes()));
  drop_reference(page);
  return copy;
}

void PagePool::add_reference(int32_t page) {
  if (++references_[static_cast<size_t>(page)] == 2) ++shared_;
}

void PagePool::drop_reference(int32_t page) {
  DMC_CHECK(references(page) > 0);
  const int32_t left = --references_[static_cast<size_t>(page)];
  if (left == 1) --shared_;
  if (left > 0) return;
  --in_use_;
  free_pages_.push_back(page);
  const int64_t run = run_of(page);
  if (--taken_in_run_[static_cast<size_t>(run)] == 0) {
    free_runs_.push_back(static_cast<int32_t>(run) * kRun);
  }
}

}  // namespace dmc::cache

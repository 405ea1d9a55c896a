#include "cache/page_pool.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"

namespace dmc::cache {
namespace {

constexpr int64_t kChunkPages = 256;  // pages allocated from the system at a time

}  // namespace

PagePool::PagePool(int page_slots, int head_dim, int64_t max_pages)
    : page_slots_(page_slots),
      head_dim_(head_dim),
      page_floats_(int64_t{2} * page_slots * head_dim),
      max_pages_(max_pages > 0 ? max_pages : std::numeric_limits<int32_t>::max()) {
  DMC_CHECK(page_slots > 0 && head_dim > 0);
}

void PagePool::grow() {
  const int64_t count = std::min(kChunkPages, max_pages_ - pages_total());
  if (count <= 0) {
    throw internal_error("the KV cache is full: all of its " + std::to_string(max_pages_) +
                         " pages are in use");
  }
  chunks_.push_back(
      std::make_unique_for_overwrite<float[]>(static_cast<size_t>(count * page_floats_)));
  for (int64_t i = 0; i < count; ++i) {
    free_.push_back(static_cast<int32_t>(pages_.size()));
    pages_.push_back(chunks_.back().get() + i * page_floats_);
    references_.push_back(0);
  }
}

int32_t PagePool::take() {
  if (free_.empty()) grow();
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

int32_t PagePool::writable(int32_t page) {
  if (references(page) == 1) return page;
  const int32_t copy = take();
  std::copy_n(pages_[static_cast<size_t>(page)], page_floats_, pages_[static_cast<size_t>(copy)]);
  --references_[static_cast<size_t>(page)];
  return copy;
}

void PagePool::add_reference(int32_t page) { ++references_[static_cast<size_t>(page)]; }

void PagePool::drop_reference(int32_t page) {
  DMC_CHECK(references(page) > 0);
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

int64_t PagePool::pages_in_use() const {
  return pages_total() - static_cast<int64_t>(free_.size());
}

}  // namespace dmc::cache

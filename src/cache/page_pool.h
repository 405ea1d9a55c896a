// Fixed-size pages with reference counts, shared by all streams of a cache. For one thread at a
// time: handing out a page is far less work than filling it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/attention.h"

namespace dmc::cache {

class PagePool {
 public:
  // max_pages 0: as many as memory allows.
  PagePool(int page_slots, int head_dim, int64_t max_pages);

  // A free page with one reference. Error(kInternal) when the limit is reached.
  int32_t take();
  // A page that its only owner may write to: `page` itself, or a copy of it (giving up a reference)
  // if others hold it too.
  int32_t writable(int32_t page);
  void add_reference(int32_t page);
  void drop_reference(int32_t page);

  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  int64_t pages_in_use() const;
  int64_t pages_total() const { return static_cast<int64_t>(pages_.size()); }
  int64_t page_bytes() const { return page_floats_ * static_cast<int64_t>(sizeof(float)); }
  // Valid until the next take(): page addresses are stable, the table of them may move.
  kernels::PoolView view() const { return {pages_.data(), page_slots_, head_dim_}; }

 private:
  void grow();

  int page_slots_, head_dim_;
  int64_t page_floats_, max_pages_;
  std::vector<std::unique_ptr<float[]>> chunks_;
  std::vector<float*> pages_;  // by page id
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;
};

}  // namespace dmc::cache

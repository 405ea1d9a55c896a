// Fixed-size pages with reference counts, shared by all streams of a cache. For one thread at a
// time: handing out a page is far less work than filling it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/huge_memory.h"
#include "kernels/slot_page.h"

namespace dmc::cache {

class PagePool {
 public:
  // max_pages 0: as many as memory allows.
  PagePool(const kernels::PageFormat& format, int64_t max_pages);

  // A free page with one reference; if possible the one behind `previous` (-1: none), so that a
  // stream's pages lie in runs and are read in long stretches. Error(kExhausted) when the limit is
  // reached.
  int32_t take(int32_t previous = -1);
  // A page that its only owner may write to: `page` itself, or a copy of it (giving up a reference)
  // if others hold it too.
  int32_t writable(int32_t page);
  void add_reference(int32_t page);
  void drop_reference(int32_t page);

  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  int64_t pages_in_use() const { return in_use_; }
  int64_t pages_shared() const { return shared_; }  // that more than one holds
  int64_t pages_total() const { return static_cast<int64_t>(pages_.size()); }
  int64_t page_bytes() const { return format_.bytes(); }
  int64_t page_slots() const { return format_.page_slots; }
  // Valid until the next take(): page addresses are stable, the table of them may move.
  kernels::PoolView view() const { return {pages_.data(), format_}; }

 private:
  // Pages come in runs of this many that lie side by side. A stream that starts a run keeps the
  // rest of it for itself as long as other runs are free.
  static constexpr int32_t kRun = 4;

  void grow();
  int32_t hand_out(int32_t page);
  int32_t pop_free_run();
  int32_t pop_free_page();
  int64_t run_of(int32_t page) const { return page / kRun; }

  kernels::PageFormat format_;
  int64_t max_pages_, in_use_ = 0, shared_ = 0;
  std::vector<HugeMemory> chunks_;
  std::vector<std::byte*> pages_;  // by page id
  std::vector<int32_t> references_;
  std::vector<int8_t> taken_in_run_;  // by run
  // Stacks of candidates, looked at again when popped: an entry may have been taken meanwhile.
  std::vector<int32_t> free_runs_, free_pages_;
};

}  // namespace dmc::cache

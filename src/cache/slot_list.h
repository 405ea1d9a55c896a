// Closed slots in pages of one owner. The pool is handed in: it belongs to the cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "cache/page_pool.h"

namespace dmc::cache {

class SlotList {
 public:
  int64_t size() const { return size_; }
  const std::vector<int32_t>& pages() const { return pages_; }

  // Writes a slot behind the others. Throws what PagePool::take() throws, and is then as before.
  void append(PagePool& pool, const float* key, const float* value, float mass);
  // Writes slot `index` anew.
  void rewrite(PagePool& pool, int64_t index, const float* key, const float* value, float mass);
  void append_copy(PagePool& pool, const SlotList& from, int64_t index);
  void read(const PagePool& pool, int64_t index, float* key, float* value) const;
  // The last slot takes the removed one's place.
  void remove(PagePool& pool, int64_t index);
  // Those of `indices`, which ascend, stay in their order.
  void keep(PagePool& pool, std::span<const size_t> indices);
  void share(PagePool& pool) const;  // a copy of this list will hold the pages too
  void clear(PagePool& pool);

  // The slots as they lie in their pages, page by page; rows that hold none are zeros.
  void save(const PagePool& pool, ByteWriter* to) const;
  // So many of them into this list, which is empty. Error(kData) if there are fewer bytes, before
  // pages are taken.
  void restore(PagePool& pool, int64_t slots, ByteReader* from);

 private:
  int64_t row_of_new_slot(PagePool& pool);
  int32_t& own_page(PagePool& pool, int64_t index);
  void copy_within(PagePool& pool, int64_t from, int64_t to);
  void shrink(PagePool& pool, int64_t size);

  std::vector<int32_t> pages_;
  int64_t size_ = 0;
};

}  // namespace dmc::cache

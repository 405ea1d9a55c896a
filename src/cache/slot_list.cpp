#include "cache/slot_list.h"

#include <algorithm>
#include <array>

namespace dmc::cache {

// Makes room behind the last slot, in a page of this list's own.
int64_t SlotList::row_of_new_slot(PagePool& pool) {
  const int64_t row = size_ % pool.page_slots();
  if (row == 0) {
    pages_.push_back(pool.take(pages_.empty() ? -1 : pages_.back()));
  } else {
    pages_.back() = pool.writable(pages_.back());
  }
  return row;
}

int32_t& SlotList::own_page(PagePool& pool, int64_t index) {
  int32_t& page = pages_[static_cast<size_t>(index / pool.page_slots())];
  page = pool.writable(page);
  return page;
}

void SlotList::append(PagePool& pool, const float* key, const float* value, float mass) {
  const int64_t row = row_of_new_slot(pool);
  kernels::write_slot(pool.view(), pages_.back(), row, key, value, mass);
  ++size_;
}

void SlotList::rewrite(PagePool& pool, int64_t index, const float* key, const float* value,
                       float mass) {
  const int32_t page = own_page(pool, index);
  kernels::write_slot(pool.view(), page, index % pool.page_slots(), key, value, mass);
}

void SlotList::append_copy(PagePool& pool, const SlotList& from, int64_t index) {
  const int64_t row = row_of_new_slot(pool);
  kernels::copy_slot(pool.view(), from.pages_[static_cast<size_t>(index / pool.page_slots())],
                     index % pool.page_slots(), pages_.back(), row);
  ++size_;
}

void SlotList::read(const PagePool& pool, int64_t index, float* key, float* value) const {
  kernels::read_slot(pool.view(), pages_[static_cast<size_t>(index / pool.page_slots())],
                     index % pool.page_slots(), key, value);
}

void SlotList::copy_within(PagePool& pool, int64_t from, int64_t to) {
  const int32_t page = own_page(pool, to);  // first: it may move the page that is read
  kernels::copy_slot(pool.view(), pages_[static_cast<size_t>(from / pool.page_slots())],
                     from % pool.page_slots(), page, to % pool.page_slots());
}

void SlotList::shrink(PagePool& pool, int64_t size) {
  size_ = size;
  const int64_t wanted = (size + pool.page_slots() - 1) / pool.page_slots();
  while (static_cast<int64_t>(pages_.size()) > wanted) {
    pool.drop_reference(pages_.back());
    pages_.pop_back();
  }
}

void SlotList::remove(PagePool& pool, int64_t index) {
  if (index != size_ - 1) copy_within(pool, size_ - 1, index);
  shrink(pool, size_ - 1);
}

void SlotList::keep(PagePool& pool, std::span<const size_t> indices) {
  int64_t to = 0;
  for (size_t index : indices) {
    const auto from = static_cast<int64_t>(index);
    if (from != to) copy_within(pool, from, to);
    ++to;
  }
  shrink(pool, to);
}

void SlotList::share(PagePool& pool) const {
  for (int32_t page : pages_) pool.add_reference(page);
}

void SlotList::clear(PagePool& pool) { shrink(pool, 0); }

void SlotList::save(const PagePool& pool, ByteWriter* to) const {
  const auto bytes = static_cast<size_t>(pool.page_bytes());
  std::vector<std::byte> last(bytes);
  for (size_t i = 0; i < pages_.size(); ++i) {
    std::byte* const page = pool.view().pages[pages_[i]];
    const int64_t slots = size_ - static_cast<int64_t>(i) * pool.page_slots();
    if (slots >= pool.page_slots()) {
      to->put_bytes(page, bytes);
      continue;
    }
    const std::array<std::byte*, 2> pages = {page, last.data()};
    for (int64_t slot = 0; slot < slots; ++slot) {
      kernels::copy_slot({pages.data(), pool.view().format}, 0, slot, 1, slot);
    }
    to->put_bytes(last.data(), bytes);
  }
}

void SlotList::restore(PagePool& pool, int64_t slots, ByteReader* from) {
  const int64_t count = (slots + pool.page_slots() - 1) / pool.page_slots();
  from->require(static_cast<uint64_t>(count), static_cast<uint64_t>(pool.page_bytes()));
  for (; size_ < slots; size_ = std::min(slots, size_ + pool.page_slots())) {
    pages_.push_back(pool.take(pages_.empty() ? -1 : pages_.back()));
    from->take_bytes(pool.view().pages[pages_.back()], static_cast<size_t>(pool.page_bytes()));
  }
}

}  // namespace dmc::cache

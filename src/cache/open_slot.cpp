#include "cache/open_slot.h"

#include <algorithm>

namespace dmc::cache {

OpenSlot::OpenSlot(int head_dim, int window)
    : dim_(head_dim),
      capacity_(std::max(window, 1)),
      windowed_(window > 0),
      weights_(static_cast<size_t>(capacity_)),
      data_(static_cast<size_t>(2 * head_dim * (capacity_ + 1))) {}

int64_t OpenSlot::bytes(int head_dim, int window) {
  const int64_t capacity = std::max(window, 1);
  return (capacity + 2 * head_dim * (capacity + 1)) * static_cast<int64_t>(sizeof(float));
}

float* OpenSlot::entry_data(int slot) { return &data_[static_cast<size_t>(2 * dim_ * (slot + 1))]; }

OpenEntry OpenSlot::entry(int index) const {
  const int slot = (head_ + index) % capacity_;
  const float* data = &data_[static_cast<size_t>(2 * dim_ * (slot + 1))];
  return {weights_[static_cast<size_t>(slot)], data, data + dim_};
}

double OpenSlot::weight() const {
  double sum = 0.0;
  for (int i = 0; i < count_; ++i) sum += entry(i).weight;
  return sum;
}

void OpenSlot::push(float weight, const float* key, const float* value) {
  ++tokens_;
  if (!windowed_ && count_ == 1) {  // fold into the running mean
    float* const data = entry_data(head_);
    float& total = weights_[static_cast<size_t>(head_)];
    total += weight;
    const float share = weight / total;
    for (int i = 0; i < dim_; ++i) {
      data[i] += share * (key[i] - data[i]);
      data[dim_ + i] += share * (value[i] - data[dim_ + i]);
    }
    return;
  }
  const bool full = count_ == capacity_;
  const int slot = (head_ + count_) % capacity_;  // when full: that of the oldest
  if (full) {
    head_ = (head_ + 1) % capacity_;
  } else {
    ++count_;
  }
  weights_[static_cast<size_t>(slot)] = weight;
  std::copy_n(key, dim_, entry_data(slot));
  std::copy_n(value, dim_, entry_data(slot) + dim_);
}

void OpenSlot::pool(int64_t position, const kernels::RopeTable* rope) {
  const float factor = static_cast<float>(1.0 / weight());
  float* const pooled = data_.data();
  std::fill_n(pooled, 2 * dim_, 0.0f);
  for (int n = 0; n < count_; ++n) {
    const OpenEntry e = entry(n);
    const float share = e.weight * factor;
    // An entry's key and value lie next to each other, as the pooled pair does.
    for (int i = 0; i < 2 * dim_; ++i) pooled[i] += share * e.key[i];
  }
  if (rope != nullptr) {
    kernels::rotate(pooled, pooled, dim_, rope->cos_at(position), rope->sin_at(position));
  }
}

}  // namespace dmc::cache

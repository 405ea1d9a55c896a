// The open slot of a stream: the weighted mean of its segment's last tokens, still taking tokens
// in.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "kernels/rope.h"

namespace dmc::cache {

// A token of the segment, or (without a window) the mean of all that have no entry of their own:
// raw key, before rotary.
struct OpenEntry {
  float weight;
  const float *key, *value;
};

struct OpenSlotShape {
  int head_dim = 0;
  int window = 0;                  // tokens of the segment that count; 0: all
  bool newest_weighs_one = false;  // whatever weight it comes with, as long as it is the newest

  // Entries: without a window one is the mean of many.
  int capacity() const { return window > 0 ? window : newest_weighs_one ? 2 : 1; }
  int64_t bytes() const {
    return (capacity() + int64_t{2} * head_dim * (capacity() + 1)) *
           static_cast<int64_t>(sizeof(float));
  }
};

class OpenSlot {
 public:
  explicit OpenSlot(const OpenSlotShape& shape);

  bool empty() const { return count_ == 0; }
  void clear() { count_ = 0, tokens_ = 0; }

  // Takes a token in. The newest token's position is the one the pooled key is rotated with.
  void push(float weight, const float* key, const float* value);
  // Computes the pooled pair from the entries; rope may be null.
  void pool(int64_t position, const kernels::RopeTable* rope);

  const float* key() const { return &data_[0]; }  // pooled and rotated
  const float* value() const { return &data_[static_cast<size_t>(shape_.head_dim)]; }  // pooled
  int entries() const { return count_; }
  OpenEntry entry(int index) const;  // oldest first
  double weight() const;             // sum over the entries
  // Logarithm of the number of tokens since clear(), those that left the window among them.
  float mass() const { return std::log(static_cast<float>(tokens_)); }

  // To the bit, but for where in the ring the oldest entry lies.
  void save(ByteWriter* to) const;
  // Into an empty one, of a stream that has seen `length` tokens. Error(kData).
  void restore(int64_t length, ByteReader* from);

 private:
  float* entry_data(int index);
  int place(int index) const { return (head_ + index) % capacity_; }
  void join_oldest(float weight, const float* key, const float* value);

  OpenSlotShape shape_;
  int capacity_;
  int count_ = 0, head_ = 0;  // entries in use; ring position of the oldest
  int64_t tokens_ = 0;
  std::vector<float> weights_;  // [capacity]
  std::vector<float> data_;     // pooled key, pooled value, then [capacity] of key, value
};

}  // namespace dmc::cache

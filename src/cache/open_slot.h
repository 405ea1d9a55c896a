// The open slot of a stream: the weighted mean of its segment's last tokens, still taking tokens
// in.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/rope.h"

namespace dmc::cache {

// A token of the segment, or (without a window) the mean of all of them: raw key, before rotary.
struct OpenEntry {
  float weight;
  const float *key, *value;
};

class OpenSlot {
 public:
  // window 0: all tokens of the segment in one running mean; else the last `window` of them.
  OpenSlot(int head_dim, int window);

  bool empty() const { return count_ == 0; }
  void clear() { count_ = 0, tokens_ = 0; }

  // Takes a token in. The newest token's position is the one the pooled key is rotated with.
  void push(float weight, const float* key, const float* value);
  // Computes the pooled pair from the entries; rope may be null.
  void pool(int64_t position, const kernels::RopeTable* rope);

  const float* key() const { return &data_[0]; }                            // pooled and rotated
  const float* value() const { return &data_[static_cast<size_t>(dim_)]; }  // pooled
  int entries() const { return count_; }
  OpenEntry entry(int index) const;  // oldest first
  double weight() const;             // sum over the entries
  // Logarithm of the number of tokens since clear(), those that left the window among them.
  float mass() const { return std::log(static_cast<float>(tokens_)); }

  static int64_t bytes(int head_dim, int window);

 private:
  float* entry_data(int slot);
  int dim_, capacity_;
  bool windowed_;
  int count_ = 0, head_ = 0;  // entries in use; ring position of the oldest
  int64_t tokens_ = 0;
  std::vector<float> weights_;  // [capacity]
  std::vector<float> data_;     // pooled key, pooled value, then [capacity] of key, value
};

}  // namespace dmc::cache

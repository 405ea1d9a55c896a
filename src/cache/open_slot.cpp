#include "cache/open_slot.h"

#include <algorithm>

namespace dmc::cache {

OpenSlot::OpenSlot(const OpenSlotShape& shape)
    : shape_(shape),
      capacity_(shape.capacity()),
      weights_(static_cast<size_t>(capacity_)),
      data_(static_cast<size_t>(2 * shape.head_dim * (capacity_ + 1))) {}

float* OpenSlot::entry_data(int index) {
  return &data_[static_cast<size_t>(2 * shape_.head_dim * (place(index) + 1))];
}

OpenEntry OpenSlot::entry(int index) const {
  const float* data = &data_[static_cast<size_t>(2 * shape_.head_dim * (place(index) + 1))];
  const bool is_one = shape_.newest_weighs_one && index + 1 == count_;
  return {is_one ? 1.0f : weights_[static_cast<size_t>(place(index))], data,
          data + shape_.head_dim};
}

double OpenSlot::weight() const {
  double sum = 0.0;
  for (int i = 0; i < count_; ++i) sum += entry(i).weight;
  return sum;
}

// Into the running mean that the oldest entry is when there is no window.
void OpenSlot::join_oldest(float weight, const float* key, const float* value) {
  float* const data = entry_data(0);
  float& total = weights_[static_cast<size_t>(place(0))];
  total += weight;
  const float share = weight / total;
  for (int i = 0; i < shape_.head_dim; ++i) {
    float* const mean_value = data + shape_.head_dim;
    data[i] += share * (key[i] - data[i]);
    mean_value[i] += share * (value[i] - mean_value[i]);
  }
}

void OpenSlot::push(float weight, const float* key, const float* value) {
  ++tokens_;
  if (count_ < capacity_) {
    ++count_;
  } else if (shape_.window > 0) {
    head_ = place(1);  // the oldest gives up its place
  } else if (capacity_ == 1) {
    return join_oldest(weight, key, value);
  } else {  // so does the newest, which joins the mean with the weight it came with
    join_oldest(weights_[static_cast<size_t>(place(1))], entry(1).key, entry(1).value);
  }
  weights_[static_cast<size_t>(place(count_ - 1))] = weight;
  std::copy_n(key, shape_.head_dim, entry_data(count_ - 1));
  std::copy_n(value, shape_.head_dim, entry_data(count_ - 1) + shape_.head_dim);
}

void OpenSlot::save(ByteWriter* to) const {
  const auto pair = static_cast<size_t>(2 * shape_.head_dim);
  to->put(int64_t{count_});
  to->put(tokens_);
  if (empty()) return;
  to->put_all(std::span(data_).first(pair));
  for (int i = 0; i < count_; ++i) {
    to->put(weights_[static_cast<size_t>(place(i))]);
    to->put_all(std::span(entry(i).key, pair));
  }
}

void OpenSlot::restore(int64_t length, ByteReader* from) {
  const auto pair = static_cast<size_t>(2 * shape_.head_dim);
  const auto count = from->take<int64_t>();
  const auto tokens = from->take<int64_t>();
  from->check(count >= 0 && count <= capacity_ && count <= tokens && tokens <= length &&
                  (count == 0) == (tokens == 0),
              "the open slot has more entries than tokens");
  clear();
  if (count == 0) return;
  const auto finite = [&](std::span<const float> values) {
    from->check(std::ranges::all_of(values, [](float x) { return std::isfinite(x); }),
                "the open slot has numbers that are none");
  };
  from->take_all(std::span(data_).first(pair));
  finite(std::span(data_).first(pair));
  head_ = 0, count_ = static_cast<int>(count), tokens_ = tokens;
  for (int i = 0; i < count_; ++i) {
    float& weight = weights_[static_cast<size_t>(i)];
    weight = from->take<float>();
    from->check(std::isfinite(weight) && weight > 0.0f, "the open slot has a weight that is none");
    from->take_all(std::span(entry_data(i), pair));
    finite(std::span(entry_data(i), pair));
  }
}

void OpenSlot::pool(int64_t position, const kernels::RopeTable* rope) {
  const int dim = shape_.head_dim;
  const float factor = static_cast<float>(1.0 / weight());
  float* const pooled = data_.data();
  std::fill_n(pooled, 2 * dim, 0.0f);
  for (int n = 0; n < count_; ++n) {
    const OpenEntry e = entry(n);
    const float share = e.weight * factor;
    // An entry's key and value lie next to each other, as the pooled pair does.
    for (int i = 0; i < 2 * dim; ++i) pooled[i] += share * e.key[i];
  }
  if (rope != nullptr) {
    kernels::rotate(pooled, pooled, dim, rope->cos_at(position), rope->sin_at(position));
  }
}

}  // namespace dmc::cache

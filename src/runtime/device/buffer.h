// Arrays in a device's memory, and in the host's where its copies are fastest.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/device.h"

namespace dmc::runtime {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(kernels::cuda::Device& device, int64_t count)  // zeros
      : device_(&device),
        data_(reinterpret_cast<T*>(device.allocate(count * static_cast<int64_t>(sizeof(T))))),
        count_(count) {}
  Buffer(kernels::cuda::Device& device, std::span<const T> from)
      : Buffer(device, static_cast<int64_t>(from.size())) {
    upload(from);
  }
  ~Buffer() {
    if (device_ != nullptr) device_->free(reinterpret_cast<std::byte*>(data_));
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void upload(std::span<const T> from, int64_t first = 0) {
    DMC_CHECK(first + static_cast<int64_t>(from.size()) <= count_);
    device_->copy_in(data_ + first, from.data(), static_cast<int64_t>(from.size_bytes()));
  }
  // Waits for everything before it.
  std::vector<T> download() const {
    std::vector<T> to(static_cast<size_t>(count_));
    device_->copy_out(to.data(), data_, count_ * static_cast<int64_t>(sizeof(T)));
    device_->wait();
    return to;
  }

  T* get() const { return data_; }  // null: empty
  int64_t size() const { return count_; }

 private:
  void swap(Buffer& other) {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }

  kernels::cuda::Device* device_ = nullptr;
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// Host memory; grows, never shrinks.
class Staging {
 public:
  explicit Staging(kernels::cuda::Device& device) : device_(device) {}
  ~Staging() { device_.free_staging(data_); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Room for `count` numbers; what it held is lost.
  template <class T>
  T* reserve(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes > bytes_) {
      device_.free_staging(std::exchange(data_, nullptr));
      bytes_ = 0;
      data_ = device_.allocate_staging(bytes);
      bytes_ = bytes;
    }
    return reinterpret_cast<T*>(data_);
  }

 private:
  kernels::cuda::Device& device_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace dmc::runtime

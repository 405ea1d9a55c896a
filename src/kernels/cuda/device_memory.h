// Arrays in device memory for tests and benchmarks. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"

namespace dmc::kernels::cuda {

// Plain allocations; every byte starts as 0xff (NaN, -1), so that what nobody wrote shows.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t count) : count_(count) {
    check(cudaMalloc(&data_, bytes() + 1), "allocating device memory");
    check(cudaMemset(data_, 0xff, bytes()), "filling device memory");
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) { upload(from); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    swap(other);
    return *this;
  }

  void upload(std::span<const T> from) {
    DMC_CHECK(from.size() == count_);
    check(cudaMemcpy(data_, from.data(), bytes(), cudaMemcpyHostToDevice), "copying to the device");
  }
  std::vector<T> download() const {
    std::vector<T> to(count_);
    check(cudaMemcpy(to.data(), data_, bytes(), cudaMemcpyDeviceToHost), "copying to the host");
    return to;
  }
  void zero() { check(cudaMemset(data_, 0, bytes()), "clearing device memory"); }

  T* get() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  void swap(DeviceArray& other) {
    std::swap(count_, other.count_);
    std::swap(data_, other.data_);
  }

  size_t count_ = 0;
  T* data_ = nullptr;
};

// Whether this machine has a GPU that a program can use.
inline bool have_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

}  // namespace dmc::kernels::cuda

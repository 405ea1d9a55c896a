// From a type that is known when the program runs to one that templates take.
#pragma once

#include "base/error.h"
#include "kernels/cuda/device.h"

namespace dmc::kernels::cuda {

// fn(pointer) with the pointer's type as the DType says: float, Types::BF16 or Types::F16, which
// are what 16-bit numbers are called where the numbers lie.
template <class Types>
struct WithNumbers {
  template <class Fn>
  void operator()(const std::byte* data, DType type, Fn&& fn) const {
    if (type == DType::kF32) return fn(reinterpret_cast<const float*>(data));
    if (type == DType::kF16) return fn(reinterpret_cast<const typename Types::F16*>(data));
    DMC_CHECK(type == DType::kBF16);
    fn(reinterpret_cast<const typename Types::BF16*>(data));
  }
  // The same of a table that may also be in int8_t.
  template <class Fn>
  void of_table(const Matrix& table, Fn&& fn) const {
    if (table.type == DType::kI8) return fn(reinterpret_cast<const int8_t*>(table.data));
    (*this)(table.data, table.type, fn);
  }
  template <class Fn>
  void operator()(const Numbers& to, Fn&& fn) const {
    (*this)(to.data, to.type, [&]<class T>(const T*) { fn(reinterpret_cast<T*>(to.data)); });
  }
};

}  // namespace dmc::kernels::cuda

// From the slot type of a cache, known when the program runs, to that of a kernel.
#pragma once

#include <string>

#include "base/dtype.h"
#include "base/error.h"

namespace dmc::kernels::cuda {

// fn.operator()<kType>() with kType == type. Error(kInvalidArgument) if slots have no such type.
template <class Fn>
auto with_slot_type(DType type, Fn&& fn) {
  switch (type) {
    case DType::kF32:
      return fn.template operator()<DType::kF32>();
    case DType::kBF16:
      return fn.template operator()<DType::kBF16>();
    case DType::kF16:
      return fn.template operator()<DType::kF16>();
    case DType::kI8:
      return fn.template operator()<DType::kI8>();
    case DType::kF8E4M3:
      return fn.template operator()<DType::kF8E4M3>();
    default:
      throw invalid_argument("slots of type " + std::string(dtype_name(type)) +
                             " are not known on CUDA");
  }
}

}  // namespace dmc::kernels::cuda

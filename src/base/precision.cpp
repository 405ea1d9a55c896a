#include "base/precision.h"

namespace dmc {
namespace {

Precisions with(const char* name, DType type) {
  return {{"f32", DType::kF32},
          {"f16", DType::kF16},
          {"bf16", DType::kBF16},
          {"int8", DType::kI8},
          {name, type}};
}

}  // namespace

const Precisions& weight_precisions() {
  static const Precisions all = with("int4", DType::kI4);
  return all;
}

const Precisions& slot_precisions() {
  static const Precisions all = with("fp8", DType::kF8E4M3);
  return all;
}

}  // namespace dmc

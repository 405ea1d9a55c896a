// In the place of NVIDIA's header, as cuda_runtime.h here.
#pragma once

#include "base/dtype.h"

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float x) : bits(dmc::f32_to_bf16(x)) {}
  operator float() const { return dmc::bf16_to_f32(bits); }
};
inline __nv_bfloat16 __float2bfloat16(float x) { return {x}; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }

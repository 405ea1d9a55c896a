// Launches of the row by row work around attention.
#pragma once

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/rows/heads.h"

struct __nv_bfloat16;

namespace dmc::kernels::cuda {

struct Half;  // half.cuh

// Splits [rows][q | k | v] into heads; In is float or __nv_bfloat16 (heads.h).
template <class In>
void split_heads(const HeadsSpec& spec, const HeadsRows<In>& io, int64_t rows, Stream stream);

struct NormSpec {
  int width;
  bool centred;  // layer norm; else root mean square
  float eps;
  const float *weight, *bias;  // [width]; bias may be null
};

// x += y (null: nothing), out = norm(x); all [rows][width]. Out is float, __nv_bfloat16 or
// Half.
template <class Out>
void add_and_norm(const NormSpec& spec, float* x, const float* y, int64_t rows, Out* out,
                  Stream stream);

}  // namespace dmc::kernels::cuda

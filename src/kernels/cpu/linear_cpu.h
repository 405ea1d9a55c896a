// SIMD kernels of products with weights.
#pragma once

#include "kernels/linear.h"

namespace dmc::kernels::cpu {

void linear_block(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                  const float* bias, float* y);
void round_activations(const float* x, int64_t inputs, ActivationGroup* to);
void group_block(const PackedWeights& weights, int64_t block, const ActivationGroup* x,
                 int64_t rows, const float* bias, float* y);
void silu_product(const float* gate, const float* up, int64_t count, float* out);

}  // namespace dmc::kernels::cpu

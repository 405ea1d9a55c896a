// Attention kernels for CPUs: SIMD written once (Highway), the instruction set chosen at run time.
#pragma once

#include "kernels/attention.h"

namespace dmc::kernels::cpu {

void attend_slots(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                  float scale, AttnState* states, float* out);
void attend_rows(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                 const int64_t* visible, float scale, AttnState* states, float* out);

}  // namespace dmc::kernels::cpu

// f16 as the templates of rows use a number type. What f16 cannot hold becomes its largest number.
#pragma once

#include "kernels/cuda/lanes/team.h"
#include "kernels/cuda/lanes/warp.cuh"

namespace dmc::kernels::cuda {

struct Half {
  uint16_t bits;

  Half() = default;
  DMC_DEVICE explicit Half(float x) : bits(WarpTeam::to_f16(clamp_to_f16(x))) {}
  DMC_DEVICE explicit operator float() const { return WarpTeam::from_f16(bits); }
};

}  // namespace dmc::kernels::cuda

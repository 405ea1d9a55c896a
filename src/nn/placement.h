// Where a model computes, and in what.
#pragma once

#include <ATen/core/Tensor.h>

namespace dmc::nn {

struct Placement {
  at::Device device = at::kCPU;
  // Of the operands of matrix products and of attention; undefined: as the parameters are. All
  // else is f32 (f64 for f64): parameters, residual stream, norms, decisions, losses.
  std::optional<at::ScalarType> products = std::nullopt;
};

// A tensor of the CPU on `device`, for whose arrival nobody on the CPU waits.
inline at::Tensor copied_to(const at::Device& device, const at::Tensor& host) {
  if (device.is_cpu()) return host;
  return host.pin_memory().to(device,
                              /*non_blocking=*/true);  // only pinned memory is not waited for
}

}  // namespace dmc::nn

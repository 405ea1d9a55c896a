#include "nn/rope.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>

#include "base/error.h"
#include "kernels/rope.h"

namespace dmc::nn {

Rope::Rope(int64_t positions, std::span<const double> frequencies, at::Device device) {
  if (frequencies.empty()) return;
  kernels::RopeTable table(positions, frequencies);
  const std::initializer_list<int64_t> shape = {positions, 1, table.head_dim / 2};
  cos_T1h_ = at::from_blob(table.cos.data(), shape).clone().to(device);
  sin_T1h_ = at::from_blob(table.sin.data(), shape).clone().to(device);
}

at::Tensor Rope::apply(const at::Tensor& x_BTHd) const {
  if (!cos_T1h_.defined()) return x_BTHd;
  const int64_t T = x_BTHd.size(1), half = x_BTHd.size(3) / 2;
  DMC_CHECK(T <= cos_T1h_.size(0));
  const at::Tensor cos = cos_T1h_.narrow(0, 0, T), sin = sin_T1h_.narrow(0, 0, T);
  const at::Tensor low = x_BTHd.narrow(3, 0, half), high = x_BTHd.narrow(3, half, half);
  return at::cat({low * cos - high * sin, high * cos + low * sin}, -1).to(x_BTHd.scalar_type());
}

}  // namespace dmc::nn

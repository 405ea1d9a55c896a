// Pooling as it is defined, for tests.
#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace dmc::ops {

// As pool() (ops/pool.h), with a [T, T] matrix of weights, differentiated by autograd: the slow
// twin.
inline std::pair<at::Tensor, at::Tensor> pool_literal(const at::Tensor& k, const at::Tensor& v,
                                                      const at::Tensor& merge,
                                                      const at::Tensor& importance, int64_t window,
                                                      bool newest_weighs_one) {
  const int64_t T = k.size(1);
  const at::Tensor log_alpha = at::log_sigmoid(merge).transpose(1, 2);  // [B, K, T]
  const at::Tensor log_omega = at::log_sigmoid(importance).transpose(1, 2);
  const at::Tensor sum = log_alpha.cumsum(-1);
  at::Tensor log_weight =
      sum.unsqueeze(-1) - sum.unsqueeze(-2) + log_omega.unsqueeze(-2);  // [B, K, t, j]
  if (newest_weighs_one) log_weight = log_weight.masked_fill(at::eye(T, at::kBool), 0.0);
  at::Tensor seen = at::ones({T, T}, at::kBool).tril();
  if (window > 0) seen = seen & at::ones({T, T}, at::kBool).triu(1 - window);
  const at::Tensor weight = log_weight.masked_fill(~seen, -INFINITY).softmax(-1);
  const auto mean = [&](const at::Tensor& x) {
    return at::matmul(weight, x.transpose(1, 2)).transpose(1, 2);
  };
  return {mean(k), mean(v)};
}

}  // namespace dmc::ops

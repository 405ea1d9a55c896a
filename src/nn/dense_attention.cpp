#include "nn/dense_attention.h"

#include "ops/attention.h"

namespace dmc::nn {

at::Tensor DenseAttention::attend(int64_t, const at::Tensor& q_BTHd, const at::Tensor& k_BTKd,
                                  const at::Tensor& v_BTKd) {
  return ops::causal_attention(rope_.apply(q_BTHd), rope_.apply(k_BTKd), v_BTKd);
}

}  // namespace dmc::nn

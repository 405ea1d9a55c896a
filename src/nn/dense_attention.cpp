#include "nn/dense_attention.h"

#include "ops/attention.h"

namespace dmc::nn {

at::Tensor DenseAttention::attend(int64_t, const AttentionInput& in) {
  return ops::causal_attention(rope_.apply(in.q_BTHd), rope_.apply(in.k_BTKd), in.v_BTKd);
}

}  // namespace dmc::nn

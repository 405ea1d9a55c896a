#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>

#include <limits>

#include "ops/attention_pair.h"
#include "ops/precision.h"

namespace dmc::ops {
namespace {

// [B, T, heads, d] to [B, H, T, d], a KV head repeated for each query head of its group.
at::Tensor by_query_head(const at::Tensor& x, int64_t heads) {
  const at::Tensor wide = at_least_f32(x);
  const int64_t groups = heads / x.size(2);
  return (groups == 1 ? wide : wide.repeat_interleave(groups, 2)).transpose(1, 2);
}

// [B, H, T, d] to [B, T, kv_heads, d]: the sum over each group.
at::Tensor sum_of_groups(const at::Tensor& x_BHTd, int64_t kv_heads) {
  return x_BHTd.unflatten(1, at::IntArrayRef{kv_heads, -1}).sum(2).transpose(1, 2);
}

at::Tensor scores(const at::Tensor& q_BHTd, const at::Tensor& k_BHTd, const CausalMask& mask) {
  const at::Tensor position = at::arange(q_BHTd.size(2), q_BHTd.options().dtype(at::kLong));
  const at::Tensor age_TT = position.unsqueeze(1) - position.unsqueeze(0);  // of key for query
  at::Tensor hidden = age_TT < 0;
  if (mask.window) hidden = hidden.logical_or(age_TT > *mask.window);
  return (at::matmul(q_BHTd, k_BHTd.transpose(2, 3)) * mask.scale)
      .masked_fill(hidden, -std::numeric_limits<double>::infinity());
}

Attended plain_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const CausalMask& mask) {
  const int64_t H = q.size(2);
  const at::Tensor s_BHTT = scores(by_query_head(q, H), by_query_head(k, H), mask);
  const at::Tensor lse_BHT = s_BHTT.logsumexp(-1);
  const at::Tensor weights = (s_BHTT - lse_BHT.unsqueeze(-1)).exp();
  const at::Tensor out = at::matmul(weights, by_query_head(v, H)).transpose(1, 2);
  return {out.to(q.scalar_type()), lse_BHT};
}

AttentionGradients plain_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const Attended& attended,
                                  const CausalMask& mask) {
  const int64_t H = q.size(2), K = k.size(2);
  const at::Tensor q_BHTd = by_query_head(q, H), k_BHTd = by_query_head(k, H);
  const at::Tensor g_BHTd = by_query_head(grad, H), out_BHTd = by_query_head(attended.out_BTHd, H);
  const at::Tensor weights = (scores(q_BHTd, k_BHTd, mask) - attended.lse_BHT.unsqueeze(-1)).exp();
  const at::Tensor gain = at::matmul(g_BHTd, by_query_head(v, H).transpose(2, 3)) -
                          (g_BHTd * out_BHTd).sum(-1, /*keepdim=*/true);
  const at::Tensor ds_BHTT = weights * gain * mask.scale;
  const at::Tensor dq = at::matmul(ds_BHTT, k_BHTd).transpose(1, 2);
  const at::Tensor dk = sum_of_groups(at::matmul(ds_BHTT.transpose(2, 3), q_BHTd), K);
  const at::Tensor dv = sum_of_groups(at::matmul(weights.transpose(2, 3), g_BHTd), K);
  return {dq.to(q.scalar_type()), dk.to(k.scalar_type()), dv.to(v.scalar_type())};
}

}  // namespace

const AttentionPair& plain_pair() {
  static constexpr AttentionPair kPair{plain_forward, plain_backward};
  return kPair;
}

}  // namespace dmc::ops

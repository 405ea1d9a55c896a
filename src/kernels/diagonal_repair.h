// The O(T d) part of DMC training attention around a stock causal flash kernel (docs/algorithm.md,
// "Attention at the speed of the stock flash kernel"). Each function is one pass over memory: as
// separate tensor operations the same work costs a tenth of a training step.
//
// Shape legend: B sequences, T tokens, H query heads, K KV heads (H a multiple of K), d head size.
// Query tensors are [B][T][H][d], KV tensors [B][T][K][d], decisions [B][T][K], all contiguous.
#pragma once

#include <cstdint>

namespace dmc::kernels {

struct RepairShape {
  int64_t batch, tokens, heads, kv_heads, dim;
};

// x_i = scale q_i.k_i + log alpha of the next token: the score of the missing part of the diagonal.
// Merges it into out and lse ([B][T][H]) in place and leaves x in `own` ([B][T][H]).
// log_merge_next: [B][T][K], -inf where there is no next token.
template <class T>
void repair_forward(const RepairShape& shape, const T* q, const T* k, const T* v,
                    const T* log_merge_next, T* out, T* lse, T* own);

// Inputs of the stock backward kernel with one more channel, [B][T][H][d + 1] each, KV tensors
// repeated for each query head: (q, 1/scale), (k, bias), (v, 0), (out, 0), (grad, 0).
template <class T>
struct PaddedInputs {
  T *q, *k, *v, *out, *grad;
};
template <class T>
void pad_for_backward(const RepairShape& shape, const T* q, const T* k, const T* v,
                      const T* bias_next, const T* out, const T* grad, const PaddedInputs<T>& to);

// Adds the diagonal's part to what the stock backward gave (dq_pad, dk_pad, dv_pad [B][T][H][d +
// 1]) and sums query heads of a group: dq [B][T][H][d], dk, dv [B][T][K][d]; dlog_merge, dbias
// [B][T][K] are the gradients of log_merge_next and of bias_next.
template <class T>
void repair_backward(const RepairShape& shape, const T* q, const T* k, const T* v, const T* out,
                     const T* grad, const T* own, const T* lse, const T* dq_pad, const T* dk_pad,
                     const T* dv_pad, T* dq, T* dk, T* dv, T* dlog_merge, T* dbias);

}  // namespace dmc::kernels

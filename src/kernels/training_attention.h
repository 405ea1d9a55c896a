// Causal attention of whole sequences with an additive bias per key, forward and backward, for
// training (docs/algorithm.md, "Attention while training"): query i sees key j with score
// scale * q_i.k_j + bias_j if i - j > delay, and without the bias if 0 <= i - j <= delay. With a
// delay of 0 only the query's own key goes without. Keys (and values) from i - j = delay on may be
// others than the nearer ones. Memory is O(T): the backward pass computes the weights again from
// the log-sum-exp that the forward pass leaves.
//
// Shape legend: B sequences, T tokens, H query heads, K KV heads (H a multiple of K; query head h
// reads KV head h / (H/K)), d head size. All tensors contiguous. T is float or double.
#pragma once

#include <cstdint>

namespace dmc::kernels {

struct AttentionShape {
  int64_t batch, tokens, heads, kv_heads, dim;
  int64_t delay;  // tokens before a key's bias counts, >= 0; without a bias of no meaning
};

template <class T>
struct AttentionInputs {
  const T* q;      // [B][T][H][d]
  const T *k, *v;  // [B][T][K][d]
  const T* bias;   // [B][T][K], finite; null: none
  // [B][T][K][d], in the place of k and v where i - j >= delay; null: k and v everywhere.
  const T *far_k = nullptr, *far_v = nullptr;
};

// out [B][T][H][d] and the log-sum-exp of the scores, lse [B][H][T].
template <class T>
void training_attention(const AttentionShape& shape, const AttentionInputs<T>& in, T* out, T* lse);

// Gradients, given that of out: dq [B][T][H][d], dk and dv [B][T][K][d], dbias [B][T][K] (null if
// there is no bias), dfar_k and dfar_v as dk (null if there are none). They are overwritten.
template <class T>
struct AttentionGradients {
  T *dq, *dk, *dv, *dbias;
  T *dfar_k = nullptr, *dfar_v = nullptr;
};
template <class T>
void training_attention_backward(const AttentionShape& shape, const AttentionInputs<T>& in,
                                 const T* out, const T* lse, const T* grad,
                                 const AttentionGradients<T>& to);

}  // namespace dmc::kernels

// Windowed segmented pooling of keys and values with soft decisions, forward and backward
// (training; docs/algorithm.md). Plain pointers, f32 and f64.
#pragma once

#include <cstdint>

namespace dmc::kernels {

struct PoolShape {
  int64_t batch, tokens, heads, dim;
  int window;  // tokens that a mean may reach back to, itself included; 0: all
  // Whatever its omega, token t weighs 1 in the mean at t.
  bool newest_weighs_one = false;
};

// At token t of each (batch, head): weights W_j = omega_j * prod_{j < m <= t} alpha_m for
// t - window < j <= t, total = sum W, k_out = sum W_j k_j / total, v_out likewise. alpha at token 0
// is taken as 0: the first token opens a segment.
// k, v, k_out, v_out: [batch][tokens][heads][dim]; alpha, omega, total: [batch][tokens][heads].
template <class T>
void pool_forward(const PoolShape& shape, const T* k, const T* v, const T* alpha, const T* omega,
                  T* k_out, T* v_out, T* total);

// gk, gv: gradients of k_out, v_out. Gives those of k, v and of the LOGITS of alpha and omega
// (alpha = sigmoid(x), omega = sigmoid(y)): no division by a probability near 0 anywhere.
template <class T>
void pool_backward(const PoolShape& shape, const T* k, const T* v, const T* alpha, const T* omega,
                   const T* k_out, const T* v_out, const T* total, const T* gk, const T* gv, T* dk,
                   T* dv, T* dalpha_logit, T* domega_logit);

}  // namespace dmc::kernels

// The SIMD part of training_attention.h: one query head of one sequence at a time.
#pragma once

#include <cstdint>
#include <vector>

namespace dmc::kernels::cpu {

// Pointers to the head's first element; strides in elements between tokens.
template <class T>
struct HeadView {
  int64_t tokens, dim, delay;
  const T *q, *k, *v, *bias;  // bias: null for none
  int64_t q_stride, kv_stride, bias_stride;
};

// Of one query head; that of keys, values and biases is its share of them: [tokens][dim], [tokens].
template <class T>
struct HeadGradients {
  T* dq;  // strided as q
  std::vector<T> dk, dv, dbias;
};

// out: strided as q; lse [tokens].
void attend_head(const HeadView<float>& head, float* out, float* lse);
void attend_head(const HeadView<double>& head, double* out, double* lse);
// out, grad: strided as q. `to` comes with zeros.
void attend_head_backward(const HeadView<float>& head, const float* out, const float* lse,
                          const float* grad, HeadGradients<float>* to);
void attend_head_backward(const HeadView<double>& head, const double* out, const double* lse,
                          const double* grad, HeadGradients<double>* to);

}  // namespace dmc::kernels::cpu

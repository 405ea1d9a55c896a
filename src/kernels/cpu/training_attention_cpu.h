// The SIMD part of training_attention.h: one query head of one sequence at a time.
#pragma once

#include <cstdint>
#include <vector>

namespace dmc::kernels::cpu {

// Keys of one query head, and the queries that see them: those first_age to last_age tokens later.
// Pointers to the head's first element.
template <class T>
struct KeyRange {
  const T *k, *v, *bias;  // bias: null for none
  int64_t first_age, last_age;
};

// Strides in elements between tokens. A query sees every key up to its own in one of the ranges.
template <class T>
struct HeadView {
  int64_t tokens, dim, delay;  // a bias counts at ages above `delay`
  const T* q;
  int64_t q_stride, kv_stride, bias_stride;
  std::vector<KeyRange<T>> ranges;
};

// Of one query head; those of keys and values are its share of them, by range.
template <class T>
struct HeadGradients {
  T* dq;                               // strided as q
  std::vector<std::vector<T>> dk, dv;  // [tokens][dim]
  std::vector<T> dbias;                // [tokens]; at most one range has biases
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

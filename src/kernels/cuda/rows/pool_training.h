// Windowed pooling with soft decisions for training, forward and backward: what kernels/pooling.h
// says for windows above 0, written for a team of lanes per (batch, token, head). Everything is
// gathered and nothing scattered, so gradients have the same bits each time.
#pragma once

#include <cstdint>

#include "kernels/cuda/lanes/portable.h"
#include "kernels/pooling.h"

namespace dmc::kernels::cuda {

// Tensors as in kernels/pooling.h; T is f32 or bf16, scalars are f32.
template <class T>
struct PoolTensors {
  PoolShape shape;
  const T *k, *v;
  const float *alpha, *omega;
  T *k_out, *v_out;
  float* total;
  // Backward only.
  const T *gk, *gv;
  T *dk, *dv;
  float *dalpha_logit, *domega_logit;
  // Scratch [batch][tokens][heads][window]: loss by log weight of token t - n in the mean at t.
  float* pull;

  DMC_HOST_DEVICE int64_t scalar(int64_t token, int64_t stream) const {
    return (stream / shape.heads * shape.tokens + token) * shape.heads + stream % shape.heads;
  }
};

// A product of alphas below this cannot be seen in f32 (kernels/pooling.cpp).
constexpr float kInvisible = 0x1p-46f;

// fn(n, weight) for the tokens t - n that count in the mean at t, newest first.
template <class T, class Fn>
DMC_DEVICE void each_weight(const PoolTensors<T>& x, int64_t t, int64_t stream, Fn&& fn) {
  float product = 1.0f;
  for (int n = 0; n < x.shape.window && n <= t && product > kInvisible; ++n) {
    const int64_t j = x.scalar(t - n, stream);
    fn(n, n == 0 && x.shape.newest_weighs_one ? 1.0f : product * x.omega[j]);
    product *= x.alpha[j];
  }
}

template <class Team, class T>
DMC_DEVICE void pool_forward_token(const PoolTensors<T>& x, int64_t t, int64_t stream) {
  const int64_t d = x.shape.dim, at = x.scalar(t, stream);
  float total = 0.0f;
  each_weight(x, t, stream, [&](int, float weight) { total += weight; });
  for (int64_t i = Team::lane(); i < d; i += Team::size()) {
    float key = 0.0f, value = 0.0f;
    each_weight(x, t, stream, [&](int n, float weight) {
      const int64_t from = x.scalar(t - n, stream) * d + i;
      key += weight / total * static_cast<float>(x.k[from]);
      value += weight / total * static_cast<float>(x.v[from]);
    });
    x.k_out[at * d + i] = static_cast<T>(key);
    x.v_out[at * d + i] = static_cast<T>(value);
  }
  if (Team::lane() == 0) x.total[at] = total;
}

// First pass of the backward: pull, for all n < window.
template <class Team, class T>
DMC_DEVICE void pool_pull_token(const PoolTensors<T>& x, int64_t t, int64_t stream) {
  const int64_t d = x.shape.dim, at = x.scalar(t, stream);
  // The gradients of t's mean times a pair [d] of keys and values.
  const auto product = [&](const T* key, const T* value) {
    float sum = 0.0f;
    for (int64_t i = Team::lane(); i < d; i += Team::size()) {
      sum += static_cast<float>(x.gk[at * d + i]) * static_cast<float>(key[i]) +
             static_cast<float>(x.gv[at * d + i]) * static_cast<float>(value[i]);
    }
    return Team::sum(sum);
  };
  float* const pull = x.pull + at * x.shape.window;
  for (int n = Team::lane(); n < x.shape.window; n += Team::size()) pull[n] = 0.0f;
  Team::sync();
  const float mean = product(x.k_out + at * d, x.v_out + at * d);
  each_weight(x, t, stream, [&](int n, float weight) {
    const int64_t from = x.scalar(t - n, stream) * d;
    const float gain = product(x.k + from, x.v + from) - mean;
    if (Team::lane() == 0) pull[n] = weight / x.total[at] * gain;
  });
}

// Second pass: all gradients of token j, from the means it is in.
template <class Team, class T>
DMC_DEVICE void pool_gradient_token(const PoolTensors<T>& x, int64_t j, int64_t stream) {
  const int64_t d = x.shape.dim, at = x.scalar(j, stream);
  const int window = x.shape.window;
  // fn(t, share): the means at t >= j that token j is in, with its share of them.
  const auto each_mean = [&](auto&& fn) {
    float product = 1.0f;
    for (int64_t t = j; t < x.shape.tokens && t - j < window; ++t) {
      if (t > j) product *= x.alpha[x.scalar(t, stream)];
      if (product <= kInvisible) return;
      const float weight = t == j && x.shape.newest_weighs_one ? 1.0f : product * x.omega[at];
      fn(t, weight / x.total[x.scalar(t, stream)]);
    }
  };
  for (int64_t i = Team::lane(); i < d; i += Team::size()) {
    float key = 0.0f, value = 0.0f;
    each_mean([&](int64_t t, float share) {
      const int64_t from = x.scalar(t, stream) * d + i;
      key += share * static_cast<float>(x.gk[from]);
      value += share * static_cast<float>(x.gv[from]);
    });
    x.dk[at * d + i] = static_cast<T>(key);
    x.dv[at * d + i] = static_cast<T>(value);
  }
  // Token j's importance is a factor of its own weight, its decision of all tokens' before it.
  float own = 0.0f, before = 0.0f;
  for (int n = Team::lane(); n < window; n += Team::size()) {
    const bool weighs_one = n == 0 && x.shape.newest_weighs_one;
    if (j + n < x.shape.tokens && !weighs_one) own += x.pull[x.scalar(j + n, stream) * window + n];
    for (int64_t t = j; t < x.shape.tokens && t - j < n; ++t) {
      before += x.pull[x.scalar(t, stream) * window + n];
    }
  }
  own = Team::sum(own);
  before = Team::sum(before);
  if (Team::lane() != 0) return;
  x.domega_logit[at] = own * (1.0f - x.omega[at]);
  x.dalpha_logit[at] = before * (1.0f - x.alpha[at]);
}

}  // namespace dmc::kernels::cuda

// Pooling without a window for training, forward and backward: what kernels/pooling.h says for
// window 0, as recurrences over the tokens of a (batch, head), which is one team's. A mean that may
// reach back to the start costs no more than any other this way.
//
// With S_t = alpha_t S_{t-1} + omega_t and N_t = alpha_t N_{t-1} + omega_t x_t the mean is N_t /
// S_t. Backward, from the last token: A_t = g_t / S_t + alpha_{t+1} A_{t+1} is the loss by N_t, and
// B_t = -(g_t . mean_t) / S_t + alpha_{t+1} B_{t+1} the loss by S_t.
#pragma once

#include "kernels/cuda/rows/pool_training.h"

namespace dmc::kernels::cuda {

constexpr int64_t kMostPooledDim = 256;

// What a lane has of a pair of vectors [dim], in registers.
template <class Team>
struct LanePair {
  static constexpr int kCount = static_cast<int>(kMostPooledDim) / Team::size();
  float key[kCount] = {}, value[kCount] = {};

  // fn(key, value, i) for the numbers i < dim that are this lane's.
  template <class Fn>
  DMC_DEVICE void each(int64_t dim, Fn&& fn) {
    DMC_UNROLL
    for (int n = 0; n < kCount; ++n) {
      const int64_t i = Team::lane() + int64_t{n} * Team::size();
      if (i < dim) fn(key[n], value[n], i);
    }
  }
};

template <class Team, class T>
DMC_DEVICE void pool_scan_forward(const PoolTensors<T>& x, int64_t stream) {
  const int64_t d = x.shape.dim;
  LanePair<Team> sums;
  float total = 0.0f;
  for (int64_t t = 0; t < x.shape.tokens; ++t) {
    const int64_t at = x.scalar(t, stream);
    const float alpha = t == 0 ? 0.0f : x.alpha[at], omega = x.omega[at];
    total = alpha * total + omega;
    sums.each(d, [&](float& key, float& value, int64_t i) {
      key = alpha * key + omega * static_cast<float>(x.k[at * d + i]);
      value = alpha * value + omega * static_cast<float>(x.v[at * d + i]);
      x.k_out[at * d + i] = static_cast<T>(key / total);
      x.v_out[at * d + i] = static_cast<T>(value / total);
    });
    if (Team::lane() == 0) x.total[at] = total;
  }
}

template <class Team, class T>
DMC_DEVICE void pool_scan_backward(const PoolTensors<T>& x, int64_t stream) {
  const int64_t d = x.shape.dim;
  LanePair<Team> by_sums;  // A
  float by_total = 0.0f;   // B
  float next_alpha = 0.0f;
  for (int64_t t = x.shape.tokens - 1; t >= 0; --t) {
    const int64_t at = x.scalar(t, stream), before = x.scalar(t - 1, stream);
    const float omega = x.omega[at], alpha = x.alpha[at];
    float mean = 0.0f, own = 0.0f, old = 0.0f;  // products with t's mean, its pair, the mean before
    by_sums.each(d, [&](float& key, float& value, int64_t i) {
      const int64_t from = at * d + i;
      const auto gk = static_cast<float>(x.gk[from]), gv = static_cast<float>(x.gv[from]);
      key = gk / x.total[at] + next_alpha * key;
      value = gv / x.total[at] + next_alpha * value;
      x.dk[from] = static_cast<T>(omega * key);
      x.dv[from] = static_cast<T>(omega * value);
      mean += gk * static_cast<float>(x.k_out[from]) + gv * static_cast<float>(x.v_out[from]);
      own += key * static_cast<float>(x.k[from]) + value * static_cast<float>(x.v[from]);
      if (t > 0) {
        old += key * static_cast<float>(x.k_out[before * d + i]) +
               value * static_cast<float>(x.v_out[before * d + i]);
      }
    });
    mean = Team::sum(mean);
    own = Team::sum(own);
    old = Team::sum(old);
    by_total = -mean / x.total[at] + next_alpha * by_total;
    next_alpha = alpha;
    if (Team::lane() != 0) continue;
    x.domega_logit[at] = (own + by_total) * omega * (1.0f - omega);
    x.dalpha_logit[at] =
        t == 0 ? 0.0f : (old + by_total) * x.total[before] * alpha * (1.0f - alpha);
  }
}

}  // namespace dmc::kernels::cuda

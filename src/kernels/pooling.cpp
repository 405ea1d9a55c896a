#include "kernels/pooling.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "kernels/dot.h"

namespace dmc::kernels {
namespace {

// One (batch, head): its rows lie `stride` apart.
template <class T>
struct Rows {
  const PoolShape& shape;
  int64_t batch, head;

  int64_t scalar(int64_t token) const {
    return (batch * shape.tokens + token) * shape.heads + head;
  }
  int64_t vector(int64_t token) const { return scalar(token) * shape.dim; }
};

template <class T>
void add_scaled(T* out, const T* in, T factor, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] += factor * in[i];
}

// Weights of tokens t, t-1, ... into `weights`; returns how many count. Once the product of alphas
// is below eps^2, the rest cannot be seen in a mean of this dtype; and because gradients are taken
// with respect to logits, each is proportional to such a weight and cannot be seen either.
template <class T>
int64_t segment_weights(const Rows<T>& rows, int64_t t, const T* alpha, const T* omega,
                        std::vector<T>& weights) {
  constexpr T kInvisible = std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon();
  const int64_t reach =
      rows.shape.window == 0 ? t + 1 : std::min<int64_t>(rows.shape.window, t + 1);
  T product = 1;
  int64_t count = 0;
  while (count < reach && product > kInvisible) {
    const int64_t j = t - count;
    const bool is_one = rows.shape.newest_weighs_one && count == 0;
    weights[static_cast<size_t>(count++)] = is_one ? T{1} : product * omega[rows.scalar(j)];
    product *= alpha[rows.scalar(j)];
  }
  return count;
}

template <class T>
int64_t longest_reach(const PoolShape& shape) {
  return shape.window == 0 ? shape.tokens : std::min<int64_t>(shape.window, shape.tokens);
}

}  // namespace

template <class T>
void pool_forward(const PoolShape& shape, const T* k, const T* v, const T* alpha, const T* omega,
                  T* k_out, T* v_out, T* total) {
  const int64_t d = shape.dim;
  parallel_for(0, shape.batch * shape.heads, 1, [&](int64_t first, int64_t last) {
    std::vector<T> weights(static_cast<size_t>(longest_reach<T>(shape)));
    for (int64_t stream = first; stream < last; ++stream) {
      const Rows<T> rows{shape, stream / shape.heads, stream % shape.heads};
      for (int64_t t = 0; t < shape.tokens; ++t) {
        const int64_t count = segment_weights(rows, t, alpha, omega, weights);
        T sum = 0;
        for (int64_t n = 0; n < count; ++n) sum += weights[static_cast<size_t>(n)];
        T* const key = k_out + rows.vector(t);
        T* const value = v_out + rows.vector(t);
        std::fill(key, key + d, T{0});
        std::fill(value, value + d, T{0});
        for (int64_t n = 0; n < count; ++n) {
          const T share = weights[static_cast<size_t>(n)] / sum;
          add_scaled(key, k + rows.vector(t - n), share, d);
          add_scaled(value, v + rows.vector(t - n), share, d);
        }
        total[rows.scalar(t)] = sum;
      }
    }
  });
}

template <class T>
void pool_backward(const PoolShape& shape, const T* k, const T* v, const T* alpha, const T* omega,
                   const T* k_out, const T* v_out, const T* total, const T* gk, const T* gv, T* dk,
                   T* dv, T* dalpha_logit, T* domega_logit) {
  const int64_t d = shape.dim;
  const int64_t scalars = shape.batch * shape.tokens * shape.heads;
  std::fill(dk, dk + scalars * d, T{0});
  std::fill(dv, dv + scalars * d, T{0});
  std::fill(dalpha_logit, dalpha_logit + scalars, T{0});
  std::fill(domega_logit, domega_logit + scalars, T{0});
  parallel_for(0, shape.batch * shape.heads, 1, [&](int64_t first, int64_t last) {
    std::vector<T> weights(static_cast<size_t>(longest_reach<T>(shape)));
    std::vector<T> pull(weights.size());  // d loss / d log(weight) of each token in the mean
    for (int64_t stream = first; stream < last; ++stream) {
      const Rows<T> rows{shape, stream / shape.heads, stream % shape.heads};
      for (int64_t t = 0; t < shape.tokens; ++t) {
        const int64_t count = segment_weights(rows, t, alpha, omega, weights);
        const T* const key_gradient = gk + rows.vector(t);
        const T* const value_gradient = gv + rows.vector(t);
        const T mean = dot(key_gradient, k_out + rows.vector(t), d) +
                       dot(value_gradient, v_out + rows.vector(t), d);
        for (int64_t n = 0; n < count; ++n) {
          const int64_t j = t - n;
          const T share = weights[static_cast<size_t>(n)] / total[rows.scalar(t)];
          const T gain = dot(key_gradient, k + rows.vector(j), d) +
                         dot(value_gradient, v + rows.vector(j), d) - mean;
          pull[static_cast<size_t>(n)] = share * gain;
          add_scaled(dk + rows.vector(j), key_gradient, share, d);
          add_scaled(dv + rows.vector(j), value_gradient, share, d);
          if (n == 0 && shape.newest_weighs_one) continue;
          domega_logit[rows.scalar(j)] += share * gain * (1 - omega[rows.scalar(j)]);
        }
        // Token t-n's decision is a factor of the weights of all tokens before it.
        T before = 0;
        for (int64_t n = count - 1; n > 0; --n) {
          before += pull[static_cast<size_t>(n)];
          const int64_t m = rows.scalar(t - n + 1);
          dalpha_logit[m] += before * (1 - alpha[m]);
        }
      }
    }
  });
}

template void pool_forward(const PoolShape&, const float*, const float*, const float*, const float*,
                           float*, float*, float*);
template void pool_forward(const PoolShape&, const double*, const double*, const double*,
                           const double*, double*, double*, double*);
template void pool_backward(const PoolShape&, const float*, const float*, const float*,
                            const float*, const float*, const float*, const float*, const float*,
                            const float*, float*, float*, float*, float*);
template void pool_backward(const PoolShape&, const double*, const double*, const double*,
                            const double*, const double*, const double*, const double*,
                            const double*, const double*, double*, double*, double*, double*);

}  // namespace dmc::kernels

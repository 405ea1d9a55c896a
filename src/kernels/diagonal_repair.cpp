#include "kernels/diagonal_repair.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "kernels/dot.h"

namespace dmc::kernels {
namespace {

constexpr int64_t kRowsAtOnce = 64;  // tokens a thread takes at a time

template <class T>
T scale_of(const RepairShape& shape) {
  return 1 / std::sqrt(static_cast<T>(shape.dim));
}

// Calls fn(query_row, kv_row) for every (sequence, token, query head), rows counted over the whole
// tensors. The heads of one token stay on one thread, so a KV row has one writer.
template <class Fn>
void for_each_head(const RepairShape& shape, Fn&& fn) {
  const int64_t group = shape.heads / shape.kv_heads;
  parallel_for(0, shape.batch * shape.tokens, kRowsAtOnce, [&](int64_t first, int64_t last) {
    for (int64_t token = first; token < last; ++token) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        fn(token * shape.heads + head, token * shape.kv_heads + head / group);
      }
    }
  });
}

template <class T>
void copy_with(const T* from, int64_t n, T last, T* to) {
  std::copy_n(from, n, to);
  to[n] = last;
}

}  // namespace

template <class T>
void repair_forward(const RepairShape& shape, const T* q, const T* k, const T* v,
                    const T* log_merge_next, T* out, T* lse, T* own) {
  const int64_t d = shape.dim;
  const T scale = scale_of<T>(shape);
  for_each_head(shape, [&](int64_t row, int64_t kv) {
    const T x = scale * dot(q + row * d, k + kv * d, d) + log_merge_next[kv];
    const T high = std::max(x, lse[row]);
    const T total = high + std::log(std::exp(x - high) + std::exp(lse[row] - high));
    const T keep = std::exp(lse[row] - total), take = std::exp(x - total);
    T* const o = out + row * d;
    const T* const value = v + kv * d;
    for (int64_t i = 0; i < d; ++i) o[i] = o[i] * keep + value[i] * take;
    lse[row] = total;
    own[row] = x;
  });
}

template <class T>
void pad_for_backward(const RepairShape& shape, const T* q, const T* k, const T* v,
                      const T* bias_next, const T* out, const T* grad, const PaddedInputs<T>& to) {
  const int64_t d = shape.dim, wide = d + 1;
  const T inverse_scale = 1 / scale_of<T>(shape);
  for_each_head(shape, [&](int64_t row, int64_t kv) {
    copy_with(q + row * d, d, inverse_scale, to.q + row * wide);
    copy_with(k + kv * d, d, bias_next[kv], to.k + row * wide);
    copy_with(v + kv * d, d, T{0}, to.v + row * wide);
    copy_with(out + row * d, d, T{0}, to.out + row * wide);
    copy_with(grad + row * d, d, T{0}, to.grad + row * wide);
  });
}

template <class T>
void repair_backward(const RepairShape& shape, const T* q, const T* k, const T* v, const T* out,
                     const T* grad, const T* own, const T* lse, const T* dq_pad, const T* dk_pad,
                     const T* dv_pad, T* dq, T* dk, T* dv, T* dlog_merge, T* dbias) {
  const int64_t d = shape.dim, wide = d + 1, kv_rows = shape.batch * shape.tokens * shape.kv_heads;
  const T scale = scale_of<T>(shape);
  std::fill_n(dk, kv_rows * d, T{0});
  std::fill_n(dv, kv_rows * d, T{0});
  std::fill_n(dlog_merge, kv_rows, T{0});
  std::fill_n(dbias, kv_rows, T{0});
  for_each_head(shape, [&](int64_t row, int64_t kv) {
    const T* const g = grad + row * d;
    const T weight = std::exp(own[row] - lse[row]);
    const T dscore = weight * (dot(g, v + kv * d, d) - dot(g, out + row * d, d));
    const T factor = dscore * scale;
    for (int64_t i = 0; i < d; ++i) {
      dq[row * d + i] = dq_pad[row * wide + i] + factor * k[kv * d + i];
      dk[kv * d + i] += dk_pad[row * wide + i] + factor * q[row * d + i];
      dv[kv * d + i] += dv_pad[row * wide + i] + weight * g[i];
    }
    dlog_merge[kv] += dscore;
    dbias[kv] += dk_pad[row * wide + d];
  });
}

template void repair_forward(const RepairShape&, const float*, const float*, const float*,
                             const float*, float*, float*, float*);
template void repair_forward(const RepairShape&, const double*, const double*, const double*,
                             const double*, double*, double*, double*);
template void pad_for_backward(const RepairShape&, const float*, const float*, const float*,
                               const float*, const float*, const float*,
                               const PaddedInputs<float>&);
template void pad_for_backward(const RepairShape&, const double*, const double*, const double*,
                               const double*, const double*, const double*,
                               const PaddedInputs<double>&);
template void repair_backward(const RepairShape&, const float*, const float*, const float*,
                              const float*, const float*, const float*, const float*, const float*,
                              const float*, const float*, float*, float*, float*, float*, float*);
template void repair_backward(const RepairShape&, const double*, const double*, const double*,
                              const double*, const double*, const double*, const double*,
                              const double*, const double*, const double*, double*, double*,
                              double*, double*, double*);

}  // namespace dmc::kernels

#include "kernels/cpu/training_attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/dot.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/training_attention_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/cpu/product-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dmc::kernels::cpu::HWY_NAMESPACE {

// Queries and keys of a tile: its scores stay in the L1 cache.
constexpr int64_t kTile = 64;

// Keys (or values) of a head with tokens side by side, [d][padded tokens]: scores of a query then
// need no sums across lanes. The padding is zeros.
template <class T>
std::vector<T> transposed(const T* from, int64_t stride, int64_t tokens, int64_t dim) {
  const int64_t padded = (tokens + kTile - 1) / kTile * kTile;
  std::vector<T> result(static_cast<size_t>(dim * padded));
  for (int64_t first = 0; first < tokens; first += kTile) {
    for (int64_t i = 0; i < dim; ++i) {
      for (int64_t t = first; t < std::min(first + kTile, tokens); ++t) {
        result[static_cast<size_t>(i * padded + t)] = from[t * stride + i];
      }
    }
  }
  return result;
}

// row = scale * row, and for its first `biased` keys + bias.
template <class T>
HWY_INLINE void scale_and_bias(T scale, const T* HWY_RESTRICT bias, int64_t biased,
                               T* HWY_RESTRICT row) {
  const hn::ScalableTag<T> tag;
  for (int64_t i = 0; i < kTile; i += HWY_LANES(T)) {
    const auto has_bias = hn::FirstN(tag, static_cast<size_t>(std::max(int64_t{0}, biased - i)));
    const auto added = hn::IfThenElseZero(has_bias, hn::LoadU(tag, bias + i));
    hn::StoreU(hn::MulAdd(hn::Set(tag, scale), hn::LoadU(tag, row + i), added), tag, row + i);
  }
}

// Scores of a tile, scaled and biased; keys out of a query's sight score minus infinity.
template <class T>
HWY_INLINE void score_tile(const HeadView<T>& head, const KeyRange<T>& range, const T* k_transposed,
                           int64_t padded, int64_t query, int64_t rows, int64_t key, const T* bias,
                           T* HWY_RESTRICT scores) {
  constexpr T kUnseen = -std::numeric_limits<T>::infinity();
  const T scale = 1 / std::sqrt(static_cast<T>(head.dim));
  product(Left<T>{head.q + query * head.q_stride, head.q_stride}, k_transposed + key, padded, rows,
          head.dim, scores, kTile, kTile, /*add=*/false);
  for (int64_t r = 0; r < rows; ++r) {
    T* const row = scores + r * kTile;
    const int64_t own = query + r - key;
    scale_and_bias(scale, bias, own - head.delay, row);
    const int64_t first = std::clamp<int64_t>(own - range.last_age, 0, kTile);
    const int64_t end = std::clamp<int64_t>(own - range.first_age + 1, 0, kTile);
    std::fill(row, row + first, kUnseen);
    std::fill(row + end, row + kTile, kUnseen);
  }
}

// The bias of a tile's keys.
template <class T>
HWY_INLINE void load_bias(const HeadView<T>& head, const KeyRange<T>& range, int64_t key, T* to) {
  std::fill_n(to, kTile, T{0});
  if (range.bias == nullptr) return;
  for (int64_t j = 0; j < std::min(kTile, head.tokens - key); ++j) {
    to[j] = range.bias[(key + j) * head.bias_stride];
  }
}

// row[i] = exp(row[i] - shift); returns the sum. exp of less than the smallest number is 0.
template <class T>
HWY_INLINE T exp_row(T* HWY_RESTRICT row, T shift) {
  const hn::ScalableTag<T> tag;
  constexpr int64_t kStep = HWY_LANES(T);
  const auto lowest = hn::Set(tag, std::is_same_v<T, float> ? T(-87) : T(-700));
  const auto minus = hn::Set(tag, shift);
  auto total = hn::Zero(tag);
  for (int64_t i = 0; i < kTile; i += kStep) {
    const auto x = hn::Sub(hn::LoadU(tag, row + i), minus);
    const auto weight = hn::IfThenElseZero(hn::Gt(x, lowest), hn::Exp(tag, hn::Max(x, lowest)));
    hn::StoreU(weight, tag, row + i);
    total = hn::Add(total, weight);
  }
  return hn::GetLane(hn::SumOfLanes(tag, total));
}

template <class T>
HWY_INLINE T max_of_row(const T* HWY_RESTRICT row) {
  const hn::ScalableTag<T> tag;
  auto largest = hn::LoadU(tag, row);
  for (int64_t i = HWY_LANES(T); i < kTile; i += HWY_LANES(T)) {
    largest = hn::Max(largest, hn::LoadU(tag, row + i));
  }
  return hn::GetLane(hn::MaxOfLanes(tag, largest));
}

template <class T>
struct TransposedKeys {
  std::vector<T> numbers;  // [d][padded]
  int64_t padded;

  TransposedKeys(const T* from, const HeadView<T>& head)
      : numbers(transposed(from, head.kv_stride, head.tokens, head.dim)),
        padded(static_cast<int64_t>(numbers.size()) / head.dim) {}
};

int64_t start_of_tile(int64_t token) { return std::max<int64_t>(0, token) / kTile * kTile; }

// The running softmax of a tile's queries.
template <class T>
struct TileState {
  std::vector<T> maxima, totals, sums;  // [kTile], [kTile], [kTile][d]

  explicit TileState(int64_t dim)
      : maxima(kTile, -std::numeric_limits<T>::infinity()), totals(kTile), sums(kTile * dim) {}
};

// Takes a row of scores, which become weights, into the state of query r of the tile.
template <class T>
HWY_INLINE void take_scores(int64_t r, int64_t dim, T* HWY_RESTRICT row, TileState<T>* state) {
  const T largest = std::max(state->maxima[r], max_of_row(row));
  if (largest == -std::numeric_limits<T>::infinity()) {  // nothing seen yet
    std::fill_n(row, kTile, T{0});
    return;
  }
  if (largest > state->maxima[r]) {
    const T keep = std::exp(state->maxima[r] - largest);
    for (int64_t i = 0; i < dim; ++i) state->sums[r * dim + i] *= keep;
    state->totals[r] *= keep;
    state->maxima[r] = largest;
  }
  state->totals[r] += exp_row(row, largest);
}

// What queries query..query+rows-1 see of one range.
template <class T>
void attend_range(const HeadView<T>& head, const KeyRange<T>& range, const TransposedKeys<T>& k,
                  int64_t query, int64_t rows, TileState<T>* state) {
  std::vector<T> scores(kTile * kTile), bias(kTile);
  const int64_t end = query + rows - range.first_age;
  for (int64_t key = start_of_tile(query - range.last_age); key < end; key += kTile) {
    load_bias(head, range, key, bias.data());
    score_tile(head, range, k.numbers.data(), k.padded, query, rows, key, bias.data(),
               scores.data());
    for (int64_t r = 0; r < rows; ++r) take_scores(r, head.dim, &scores[r * kTile], state);
    product(Left<T>{scores.data(), kTile}, range.v + key * head.kv_stride, head.kv_stride, rows,
            std::min(kTile, head.tokens - key), state->sums.data(), head.dim, head.dim,
            /*add=*/true);
  }
}

template <class T>
void forward(const HeadView<T>& head, T* out, T* lse) {
  const int64_t tokens = head.tokens, dim = head.dim;
  std::vector<TransposedKeys<T>> keys;
  for (const KeyRange<T>& range : head.ranges) keys.emplace_back(range.k, head);
  for (int64_t query = 0; query < tokens; query += kTile) {
    const int64_t rows = std::min(kTile, tokens - query);
    TileState<T> state(dim);
    for (size_t n = 0; n < keys.size(); ++n) {
      attend_range(head, head.ranges[n], keys[n], query, rows, &state);
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < dim; ++i) {
        out[(query + r) * head.q_stride + i] = state.sums[r * dim + i] / state.totals[r];
      }
      lse[query + r] = state.maxima[r] + std::log(state.totals[r]);
    }
  }
}

// dS = P (dP - D) in place of dP, where P are the weights and D the products of out and grad.
template <class T>
HWY_INLINE void score_gradients(const T* HWY_RESTRICT weights, const T* HWY_RESTRICT products,
                                int64_t rows, T* HWY_RESTRICT dp) {
  const hn::ScalableTag<T> tag;
  for (int64_t r = 0; r < rows; ++r) {
    const auto minus = hn::Set(tag, products[r]);
    for (int64_t i = r * kTile; i < (r + 1) * kTile; i += HWY_LANES(T)) {
      hn::StoreU(hn::Mul(hn::LoadU(tag, weights + i), hn::Sub(hn::LoadU(tag, dp + i), minus)), tag,
                 dp + i);
    }
  }
}

// A key's bias is added to the scores of queries more than `delay` tokens later.
template <class T>
HWY_INLINE void add_bias_gradient(const T* HWY_RESTRICT ds, int64_t query, int64_t rows,
                                  int64_t key, int64_t keys, int64_t delay, T* HWY_RESTRICT dbias) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t biased = std::min(keys, query + r - key - delay);
    for (int64_t j = 0; j < biased; ++j) dbias[j] += ds[r * kTile + j];
  }
}

// The gradients through one range. products [T]: of out and grad.
template <class T>
void range_backward(const HeadView<T>& head, size_t n, const T* lse, const T* grad,
                    const std::vector<T>& products, HeadGradients<T>* to) {
  const KeyRange<T>& range = head.ranges[n];
  const int64_t tokens = head.tokens, dim = head.dim, stride = head.q_stride;
  const TransposedKeys<T> k(range.k, head), v(range.v, head);
  std::vector<T> weights(kTile * kTile), ds(kTile * kTile), bias(kTile);
  for (int64_t key = 0; key + range.first_age < tokens; key += kTile) {
    const int64_t keys = std::min(kTile, tokens - key);
    const int64_t end = std::min(tokens, key + kTile + std::min(range.last_age, tokens));
    load_bias(head, range, key, bias.data());
    for (int64_t query = start_of_tile(key + range.first_age); query < end; query += kTile) {
      const int64_t rows = std::min(kTile, tokens - query);
      const Left<T> grad_rows{grad + query * stride, stride};
      score_tile(head, range, k.numbers.data(), k.padded, query, rows, key, bias.data(),
                 weights.data());
      for (int64_t r = 0; r < rows; ++r) exp_row(&weights[r * kTile], lse[query + r]);
      product(grad_rows, v.numbers.data() + key, v.padded, rows, dim, ds.data(), kTile, kTile,
              false);
      score_gradients(weights.data(), &products[query], rows, ds.data());

      product(Left<T>{weights.data(), 1, kTile}, grad_rows.data, stride, keys, rows,
              &to->dv[n][key * dim], dim, dim, /*add=*/true);
      if (range.bias != nullptr) {
        add_bias_gradient(ds.data(), query, rows, key, keys, head.delay, &to->dbias[key]);
      }
      product(Left<T>{ds.data(), 1, kTile}, head.q + query * stride, stride, keys, rows,
              &to->dk[n][key * dim], dim, dim, /*add=*/true);
      product(Left<T>{ds.data(), kTile}, range.k + key * head.kv_stride, head.kv_stride, rows, keys,
              to->dq + query * stride, stride, dim, /*add=*/true);
    }
  }
  const T scale = 1 / std::sqrt(static_cast<T>(dim));
  for (T& x : to->dk[n]) x *= scale;
}

template <class T>
void backward(const HeadView<T>& head, const T* out, const T* lse, const T* grad,
              HeadGradients<T>* to) {
  const int64_t dim = head.dim, stride = head.q_stride;
  std::vector<T> products(static_cast<size_t>(head.tokens));
  for (int64_t t = 0; t < head.tokens; ++t) {
    products[static_cast<size_t>(t)] = dot(out + t * stride, grad + t * stride, dim);
    std::fill_n(to->dq + t * stride, dim, T{0});
  }
  for (size_t n = 0; n < head.ranges.size(); ++n) {
    range_backward(head, n, lse, grad, products, to);
  }
  const T scale = 1 / std::sqrt(static_cast<T>(dim));
  for (int64_t t = 0; t < head.tokens; ++t) {
    for (int64_t i = 0; i < dim; ++i) to->dq[t * stride + i] *= scale;
  }
}

void ForwardF32(const HeadView<float>& head, float* out, float* lse) { forward(head, out, lse); }
void ForwardF64(const HeadView<double>& head, double* out, double* lse) { forward(head, out, lse); }
void BackwardF32(const HeadView<float>& head, const float* out, const float* lse, const float* grad,
                 HeadGradients<float>* to) {
  backward(head, out, lse, grad, to);
}
void BackwardF64(const HeadView<double>& head, const double* out, const double* lse,
                 const double* grad, HeadGradients<double>* to) {
  backward(head, out, lse, grad, to);
}

}  // namespace dmc::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dmc::kernels::cpu {

HWY_EXPORT(ForwardF32);
HWY_EXPORT(ForwardF64);
HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardF64);

void attend_head(const HeadView<float>& head, float* out, float* lse) {
  HWY_DYNAMIC_DISPATCH(ForwardF32)(head, out, lse);
}
void attend_head(const HeadView<double>& head, double* out, double* lse) {
  HWY_DYNAMIC_DISPATCH(ForwardF64)(head, out, lse);
}
void attend_head_backward(const HeadView<float>& head, const float* out, const float* lse,
                          const float* grad, HeadGradients<float>* to) {
  HWY_DYNAMIC_DISPATCH(BackwardF32)(head, out, lse, grad, to);
}
void attend_head_backward(const HeadView<double>& head, const double* out, const double* lse,
                          const double* grad, HeadGradients<double>* to) {
  HWY_DYNAMIC_DISPATCH(BackwardF64)(head, out, lse, grad, to);
}

}  // namespace dmc::kernels::cpu
#endif

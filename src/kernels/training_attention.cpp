#include "kernels/training_attention.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "kernels/cpu/training_attention_cpu.h"

namespace dmc::kernels {
namespace {

template <class T>
cpu::HeadView<T> view_of(const AttentionShape& s, const AttentionInputs<T>& in, int64_t sequence,
                         int64_t head) {
  const int64_t kv_head = head / (s.heads / s.kv_heads), first = sequence * s.tokens;
  const int64_t kv = (first * s.kv_heads + kv_head) * s.dim;
  const T* const bias = in.bias == nullptr ? nullptr : in.bias + first * s.kv_heads + kv_head;
  cpu::HeadView<T> view{s.tokens,        s.dim,
                        s.delay,         in.q + (first * s.heads + head) * s.dim,
                        s.heads * s.dim, s.kv_heads * s.dim,
                        s.kv_heads,      {}};
  if (in.far_k == nullptr) {
    view.ranges = {{in.k + kv, in.v + kv, bias, 0, s.tokens}};
  } else {
    view.ranges = {{in.k + kv, in.v + kv, nullptr, 0, s.delay - 1},
                   {in.far_k + kv, in.far_v + kv, bias, s.delay, s.tokens}};
  }
  return view;
}

// Calls fn(sequence, head) for every query head, on all threads.
template <class Fn>
void for_each_head(const AttentionShape& shape, Fn&& fn) {
  parallel_for(0, shape.batch * shape.heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) fn(n / shape.heads, n % shape.heads);
  });
}

// Sums what the query heads of each group gave, in their order: from[head] is [T][width], to is
// [T][K][width] of one sequence.
template <class T, class Part>
void sum_groups(const AttentionShape& s, const std::vector<cpu::HeadGradients<T>>& heads,
                int64_t sequence, int64_t width, Part part, T* to) {
  const int64_t group = s.heads / s.kv_heads;
  T* const begin = to + sequence * s.tokens * s.kv_heads * width;
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
      T* const sum = begin + (t * s.kv_heads + kv) * width;
      std::fill_n(sum, width, T{0});
      for (int64_t g = 0; g < group; ++g) {
        const auto& head = heads[static_cast<size_t>(sequence * s.heads + kv * group + g)];
        const T* const from = part(head).data() + t * width;
        for (int64_t i = 0; i < width; ++i) sum[i] += from[i];
      }
    }
  }
}

}  // namespace

template <class T>
void training_attention(const AttentionShape& shape, const AttentionInputs<T>& in, T* out, T* lse) {
  for_each_head(shape, [&](int64_t sequence, int64_t head) {
    cpu::attend_head(view_of(shape, in, sequence, head),
                     out + (sequence * shape.tokens * shape.heads + head) * shape.dim,
                     lse + (sequence * shape.heads + head) * shape.tokens);
  });
}

template <class T>
void training_attention_backward(const AttentionShape& shape, const AttentionInputs<T>& in,
                                 const T* out, const T* lse, const T* grad,
                                 const AttentionGradients<T>& to) {
  std::vector<cpu::HeadGradients<T>> heads(static_cast<size_t>(shape.batch * shape.heads));
  for_each_head(shape, [&](int64_t sequence, int64_t head) {
    const int64_t n = sequence * shape.heads + head;
    const int64_t offset = (sequence * shape.tokens * shape.heads + head) * shape.dim;
    cpu::HeadGradients<T>& own = heads[static_cast<size_t>(n)];
    const cpu::HeadView<T> view = view_of(shape, in, sequence, head);
    own.dq = to.dq + offset;
    const std::vector<T> zeros(static_cast<size_t>(shape.tokens * shape.dim));
    own.dk.assign(view.ranges.size(), zeros);
    own.dv = own.dk;
    own.dbias.resize(static_cast<size_t>(shape.tokens));
    cpu::attend_head_backward(view, out + offset, lse + n * shape.tokens, grad + offset, &own);
  });
  parallel_for(0, shape.batch, 1, [&](int64_t sequence, int64_t) {
    using Head = cpu::HeadGradients<T>;
    const auto sum = [&](int64_t width, T* into, auto part) {
      if (into != nullptr) sum_groups(shape, heads, sequence, width, part, into);
    };
    using Numbers = const std::vector<T>&;
    sum(shape.dim, to.dk, [](const Head& h) -> Numbers { return h.dk.front(); });
    sum(shape.dim, to.dv, [](const Head& h) -> Numbers { return h.dv.front(); });
    sum(shape.dim, to.dfar_k, [](const Head& h) -> Numbers { return h.dk.back(); });
    sum(shape.dim, to.dfar_v, [](const Head& h) -> Numbers { return h.dv.back(); });
    sum(1, to.dbias, [](const Head& h) -> Numbers { return h.dbias; });
  });
}

template void training_attention(const AttentionShape&, const AttentionInputs<float>&, float*,
                                 float*);
template void training_attention(const AttentionShape&, const AttentionInputs<double>&, double*,
                                 double*);
template void training_attention_backward(const AttentionShape&, const AttentionInputs<float>&,
                                          const float*, const float*, const float*,
                                          const AttentionGradients<float>&);
template void training_attention_backward(const AttentionShape&, const AttentionInputs<double>&,
                                          const double*, const double*, const double*,
                                          const AttentionGradients<double>&);

}  // namespace dmc::kernels

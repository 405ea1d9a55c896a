// The training kernels as torch operators, through LibTorch's stable ABI: one file for torch 2.10
// and newer, whatever it was compiled with. Python (ops.py) adds the fake kernels and the
// gradients. Shapes as in kernels/pooling.h and kernels/training_attention.h; f32 or f64, on the
// CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "base/parallel.h"
#include "kernels/pooling.h"
#include "kernels/training_attention.h"

namespace {

using dmc::kernels::AttentionInputs;
using dmc::kernels::AttentionShape;
using dmc::kernels::PoolShape;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

// Calls fn(T{}) with the type that x holds.
template <class Fn>
void with_type_of(const Tensor& x, Fn&& fn) {
  if (x.scalar_type() == ScalarType::Double) {
    fn(double{});
  } else {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "dmc: expected float32 or float64");
    fn(float{});
  }
}

template <class T>
const T* read(const Tensor& x) {
  return static_cast<const T*>(x.data_ptr());
}
template <class T>
const T* read(const Optional& x) {
  return x ? read<T>(*x) : nullptr;
}
template <class T>
T* write(const Tensor& x) {
  return x.numel() == 0 ? nullptr : static_cast<T*>(x.data_ptr());
}

Tensor packed(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }
Optional packed(const Optional& x) { return x ? Optional(packed(*x)) : std::nullopt; }

// An operator's gradient of an input that is not there has no elements.
Tensor like(const Optional& x, const Tensor& or_of) {
  return x ? torch::stable::empty_like(*x) : torch::stable::new_empty(or_of, {0});
}

void check_alike(const Tensor& x, const Tensor& y, const char* what) {
  bool same = x.dim() == y.dim() && x.scalar_type() == y.scalar_type();
  for (int64_t i = 0; same && i < x.dim(); ++i) same = x.size(i) == y.size(i);
  STD_TORCH_CHECK(same, what);
}

// k [B, T, K, d] and x [B, T, K].
void check_by_token(const Tensor& k, const Tensor& x, const char* what) {
  STD_TORCH_CHECK(x.dim() == 3 && x.size(0) == k.size(0) && x.size(1) == k.size(1) &&
                      x.size(2) == k.size(2) && x.scalar_type() == k.scalar_type(),
                  what);
}

// Kernels run on torch's threads: a pool of our own would fight with them for the cores.
void use_torch_threads() {
  static const bool done = [] {
    const auto threads = static_cast<int>(torch::stable::get_num_threads());
    dmc::use_thread_team(
        [](const std::function<void()>& work) {
          torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1,
                                      [&](int64_t first, int64_t last) {
                                        for (int64_t i = first; i < last; ++i) work();
                                      });
        },
        threads);
    return true;
  }();
  static_cast<void>(done);
}

template <class T>
std::vector<T> sigmoid(const Tensor& x) {
  const T* const from = read<T>(x);
  std::vector<T> to(static_cast<size_t>(x.numel()));
  for (size_t i = 0; i < to.size(); ++i) to[i] = T{1} / (T{1} + std::exp(-from[i]));
  return to;
}

PoolShape pool_shape(const Tensor& k, int64_t window, bool newest_weighs_one) {
  STD_TORCH_CHECK(k.dim() == 4, "dmc::pool: k must be [B, T, K, d]");
  STD_TORCH_CHECK(window >= 0 && window <= (1 << 30), "dmc::pool: window must not be negative");
  return {k.size(0), k.size(1), k.size(2), k.size(3), static_cast<int>(window), newest_weighs_one};
}

void check_pool(const Tensor& k, const Tensor& v, const Tensor& merge, const Tensor& importance) {
  check_alike(k, v, "dmc::pool: k and v must be alike");
  check_by_token(k, merge, "dmc::pool: merge_logit must be [B, T, K] of k's dtype");
  check_by_token(k, importance, "dmc::pool: importance_logit must be [B, T, K] of k's dtype");
}

std::tuple<Tensor, Tensor, Tensor> pool(const Tensor& k_, const Tensor& v_, const Tensor& merge_,
                                        const Tensor& importance_, int64_t window,
                                        bool newest_weighs_one) {
  use_torch_threads();
  const PoolShape shape = pool_shape(k_, window, newest_weighs_one);
  check_pool(k_, v_, merge_, importance_);
  const Tensor k = packed(k_), v = packed(v_), merge = packed(merge_);
  const Tensor importance = packed(importance_);
  Tensor k_out = torch::stable::empty_like(k), v_out = torch::stable::empty_like(v);
  Tensor total = torch::stable::empty_like(merge);
  with_type_of(k, [&]<class T>(T) {
    dmc::kernels::pool_forward<T>(shape, read<T>(k), read<T>(v), sigmoid<T>(merge).data(),
                                  sigmoid<T>(importance).data(), write<T>(k_out), write<T>(v_out),
                                  write<T>(total));
  });
  return {k_out, v_out, total};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pool_backward(
    const Tensor& grad_k, const Tensor& grad_v, const Tensor& k_, const Tensor& v_,
    const Tensor& merge_, const Tensor& importance_, const Tensor& k_out_, const Tensor& v_out_,
    const Tensor& total_, int64_t window, bool newest_weighs_one) {
  use_torch_threads();
  const PoolShape shape = pool_shape(k_, window, newest_weighs_one);
  check_pool(k_, v_, merge_, importance_);
  for (const Tensor* x : {&grad_k, &grad_v, &k_out_, &v_out_}) {
    check_alike(k_, *x, "dmc::pool_backward: gradients and means must be like k");
  }
  check_by_token(k_, total_, "dmc::pool_backward: total must be [B, T, K]");
  const Tensor k = packed(k_), v = packed(v_), merge = packed(merge_);
  const Tensor importance = packed(importance_), k_out = packed(k_out_), v_out = packed(v_out_);
  const Tensor total = packed(total_), gk = packed(grad_k), gv = packed(grad_v);
  Tensor dk = torch::stable::empty_like(k), dv = torch::stable::empty_like(v);
  Tensor dmerge = torch::stable::empty_like(merge);
  Tensor dimportance = torch::stable::empty_like(importance);
  with_type_of(k, [&]<class T>(T) {
    dmc::kernels::pool_backward<T>(shape, read<T>(k), read<T>(v), sigmoid<T>(merge).data(),
                                   sigmoid<T>(importance).data(), read<T>(k_out), read<T>(v_out),
                                   read<T>(total), read<T>(gk), read<T>(gv), write<T>(dk),
                                   write<T>(dv), write<T>(dmerge), write<T>(dimportance));
  });
  return {dk, dv, dmerge, dimportance};
}

// What attention reads, checked and contiguous.
struct Operands {
  Tensor q, k, v;
  Optional bias, far_k, far_v;
  AttentionShape shape;

  Operands(const Tensor& q_, const Tensor& k_, const Tensor& v_, const Optional& bias_,
           const Optional& far_k_, const Optional& far_v_, int64_t delay)
      : q(packed(q_)),
        k(packed(k_)),
        v(packed(v_)),
        bias(packed(bias_)),
        far_k(packed(far_k_)),
        far_v(packed(far_v_)) {
    STD_TORCH_CHECK(q.dim() == 4 && k.dim() == 4, "dmc::attend: q and k must have 4 dimensions");
    STD_TORCH_CHECK(q.size(0) == k.size(0) && q.size(1) == k.size(1) && q.size(3) == k.size(3) &&
                        k.size(2) > 0 && q.size(2) % k.size(2) == 0 &&
                        q.scalar_type() == k.scalar_type(),
                    "dmc::attend: q must be [B, T, H, d] and k [B, T, K, d], H a multiple of K");
    STD_TORCH_CHECK(delay >= 0, "dmc::attend: delay must not be negative");
    STD_TORCH_CHECK(far_k.has_value() == far_v.has_value(),
                    "dmc::attend: far_k and far_v belong together");
    check_alike(k, v, "dmc::attend: k and v must be alike");
    if (bias) check_by_token(k, *bias, "dmc::attend: bias must be [B, T, K] of k's dtype");
    if (far_k) check_alike(k, *far_k, "dmc::attend: far_k must be like k");
    if (far_v) check_alike(k, *far_v, "dmc::attend: far_v must be like k");
    shape = {q.size(0), q.size(1), q.size(2), k.size(2), q.size(3), delay};
  }

  template <class T>
  AttentionInputs<T> inputs() const {
    return {read<T>(q), read<T>(k), read<T>(v), read<T>(bias), read<T>(far_k), read<T>(far_v)};
  }
};

std::tuple<Tensor, Tensor> attend(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Optional& bias, const Optional& far_k,
                                  const Optional& far_v, int64_t delay) {
  use_torch_threads();
  const Operands x(q, k, v, bias, far_k, far_v, delay);
  Tensor out = torch::stable::empty_like(x.q);
  Tensor lse = torch::stable::new_empty(x.q, {q.size(0), q.size(2), q.size(1)});
  with_type_of(q, [&]<class T>(T) {
    dmc::kernels::training_attention<T>(x.shape, x.inputs<T>(), write<T>(out), write<T>(lse));
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> attend_backward(
    const Tensor& grad_, const Tensor& q, const Tensor& k, const Tensor& v, const Optional& bias,
    const Optional& far_k, const Optional& far_v, const Tensor& out_, const Tensor& lse_,
    int64_t delay) {
  use_torch_threads();
  const Operands x(q, k, v, bias, far_k, far_v, delay);
  check_alike(q, grad_, "dmc::attend_backward: grad must be like q");
  check_alike(q, out_, "dmc::attend_backward: out must be like q");
  STD_TORCH_CHECK(
      lse_.numel() == q.size(0) * q.size(1) * q.size(2) && lse_.scalar_type() == q.scalar_type(),
      "dmc::attend_backward: lse must be [B, H, T]");
  const Tensor grad = packed(grad_), out = packed(out_), lse = packed(lse_);
  Tensor dq = torch::stable::empty_like(x.q), dk = torch::stable::empty_like(x.k);
  Tensor dv = torch::stable::empty_like(x.v), dbias = like(x.bias, x.q);
  Tensor dfar_k = like(x.far_k, x.q), dfar_v = like(x.far_v, x.q);
  with_type_of(q, [&]<class T>(T) {
    dmc::kernels::training_attention_backward<T>(
        x.shape, x.inputs<T>(), read<T>(out), read<T>(lse), read<T>(grad),
        {write<T>(dq), write<T>(dk), write<T>(dv), write<T>(dbias), write<T>(dfar_k),
         write<T>(dfar_v)});
  });
  return {dq, dk, dv, dbias, dfar_k, dfar_v};
}

}  // namespace

STABLE_TORCH_LIBRARY(dmc, m) {
  m.def(
      "pool(Tensor k, Tensor v, Tensor merge_logit, Tensor importance_logit, int window, "
      "bool newest_weighs_one) -> (Tensor, Tensor, Tensor)");
  m.def(
      "pool_backward(Tensor grad_k, Tensor grad_v, Tensor k, Tensor v, Tensor merge_logit, "
      "Tensor importance_logit, Tensor k_out, Tensor v_out, Tensor total, int window, "
      "bool newest_weighs_one) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "attend(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? far_k, Tensor? far_v, "
      "int delay) -> (Tensor, Tensor)");
  m.def(
      "attend_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? far_k, "
      "Tensor? far_v, Tensor out, Tensor lse, int delay) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dmc, CPU, m) {
  m.impl("pool", TORCH_BOX(&pool));
  m.impl("pool_backward", TORCH_BOX(&pool_backward));
  m.impl("attend", TORCH_BOX(&attend));
  m.impl("attend_backward", TORCH_BOX(&attend_backward));
}

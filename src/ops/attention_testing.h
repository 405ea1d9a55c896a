// Random inputs for tests of attention with decisions. Shape legend as in ops/attention.h.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace dmc::ops {

struct Shape {
  int64_t B, T, H, K, d;
};

struct Inputs {
  at::Tensor q, k, v, logit, gradient;
};

// Leaves in f64. `sharpness` multiplies the logits: large ones give decisions that are all but 0
// or 1.
inline Inputs random_inputs(const Shape& s, double sharpness, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto normal = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, generator, at::kDouble);
  };
  Inputs in{normal({s.B, s.T, s.H, s.d}), normal({s.B, s.T, s.K, s.d}),
            normal({s.B, s.T, s.K, s.d}), normal({s.B, s.T, s.K}) * sharpness,
            normal({s.B, s.T, s.H, s.d})};
  for (at::Tensor* t : {&in.q, &in.k, &in.v, &in.logit}) t->set_requires_grad(true);
  return in;
}

}  // namespace dmc::ops

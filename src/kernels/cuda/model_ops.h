// The small pieces of a decoder around its products: embedding rows, the gated activation. Row by
// row, by a team of lanes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/portable.h"

namespace dmc::kernels::cuda {

// x = row `token` of table [vocab][width]; a token outside of it (one that could not be chosen)
// gives zeros.
template <class Team, class In>
DMC_DEVICE void embed_row(const In* table, int64_t vocab, int64_t width, int32_t token, float* x) {
  const bool known = token >= 0 && token < vocab;
  for (int64_t i = Team::lane(); i < width; i += Team::size()) {
    x[i] = known ? static_cast<float>(table[token * width + i]) : 0.0f;
  }
}

// out = silu(gate) * up of a row [gate | up], `width` numbers each.
template <class Team, class Out>
DMC_DEVICE void swiglu_row(const float* gate_up, int64_t width, Out* out) {
  for (int64_t i = Team::lane(); i < width; i += Team::size()) {
    const float gate = gate_up[i];
    out[i] = static_cast<Out>(gate / (1.0f + expf(-gate)) * gate_up[width + i]);
  }
}

}  // namespace dmc::kernels::cuda

// The small pieces of a decoder around its products: embedding rows, activations. Row by
// row, by a team of lanes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/lanes/portable.h"

namespace dmc::kernels::cuda {

// What is added to an embedding's rows; null: nothing.
struct EmbeddingSums {
  const float* positions = nullptr;  // [positions][width], by the rows' positions
  const float* constant = nullptr;   // [width]
};

// An embedding's table [vocab][width]. In int8_t its rows have scales [vocab]; else null.
template <class In>
struct EmbeddingTable {
  const In* rows;
  const float* scales;
  int64_t vocab, width;
};

// x = row `token` of the table, with the sums; a token outside of it (one that could not be chosen)
// gives zeros in its place.
template <class Team, class In>
DMC_DEVICE void embed_row(const EmbeddingTable<In>& table, int32_t token, const EmbeddingSums& sums,
                          int32_t position, float* x) {
  const int64_t width = table.width;
  const bool known = token >= 0 && token < table.vocab;
  const float scale = known && table.scales != nullptr ? table.scales[token] : 1.0f;
  for (int64_t i = Team::lane(); i < width; i += Team::size()) {
    float sum = known ? scale * static_cast<float>(table.rows[token * width + i]) : 0.0f;
    if (sums.positions != nullptr) sum += sums.positions[position * width + i];
    if (sums.constant != nullptr) sum += sums.constant[i];
    x[i] = sum;
  }
}

enum class Activation { kSiluGated, kGelu, kGeluTanh };

// Numbers of a row in front of the activation, for each behind it: gate and up, or up alone.
DMC_HOST_DEVICE int activation_inputs(Activation kind) {
  return kind == Activation::kSiluGated ? 2 : 1;
}

DMC_DEVICE float activated(Activation kind, const float* row, int64_t width, int64_t i) {
  constexpr float kRootHalf = 0.70710678f, kRootTwoOverPi = 0.79788456f;
  const float x = row[i];
  switch (kind) {
    case Activation::kSiluGated:
      return x / (1.0f + expf(-x)) * row[width + i];
    case Activation::kGelu:
      return 0.5f * x * (1.0f + erff(x * kRootHalf));
    default:
      return 0.5f * x * (1.0f + tanhf(kRootTwoOverPi * (x + 0.044715f * x * x * x)));
  }
}

// out [width] of a row of the product before it.
template <class Team, class Out>
DMC_DEVICE void activate_row(Activation kind, const float* row, int64_t width, Out* out) {
  for (int64_t i = Team::lane(); i < width; i += Team::size()) {
    out[i] = static_cast<Out>(activated(kind, row, width, i));
  }
}

}  // namespace dmc::kernels::cuda

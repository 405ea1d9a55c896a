#include "kernels/rope.h"

#include <cmath>

namespace dmc::kernels {

RopeTable::RopeTable(int64_t position_count, int64_t dim, double theta)
    : positions(position_count), head_dim(dim) {
  const int64_t half = dim / 2;
  cos.resize(static_cast<size_t>(positions * half));
  sin.resize(static_cast<size_t>(positions * half));
  for (int64_t i = 0; i < half; ++i) {
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      cos[static_cast<size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
      sin[static_cast<size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
    }
  }
}

void rotate(const float* in, float* out, int64_t head_dim, const float* cos, const float* sin,
            float direction) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float low = in[i], high = in[half + i], s = direction * sin[i];
    out[i] = low * cos[i] - high * s;
    out[half + i] = high * cos[i] + low * s;
  }
}

}  // namespace dmc::kernels

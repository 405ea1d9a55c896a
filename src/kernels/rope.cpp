#include "kernels/rope.h"

#include <cmath>

namespace dmc::kernels {

namespace {

std::vector<double> powers_of_theta(int64_t dim, double theta) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dim);
    frequencies.push_back(std::pow(theta, exponent));
  }
  return frequencies;
}

}  // namespace

RopeTable::RopeTable(int64_t position_count, std::span<const double> frequencies)
    : positions(position_count), head_dim(2 * static_cast<int64_t>(frequencies.size())) {
  const int64_t half = head_dim / 2;
  cos.resize(static_cast<size_t>(positions * half));
  sin.resize(static_cast<size_t>(positions * half));
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequencies[static_cast<size_t>(i)];
      cos[static_cast<size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
      sin[static_cast<size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
    }
  }
}

RopeTable::RopeTable(int64_t position_count, int64_t dim, double theta)
    : RopeTable(position_count, powers_of_theta(dim, theta)) {}

void RopeTable::keep_last_zero() {
  const size_t half = static_cast<size_t>(head_dim / 2);
  for (size_t last = half - 1; last < sin.size(); last += half) sin[last] = 0.0f;
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

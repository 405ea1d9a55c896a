// A dot product in plain C++, f32 and f64.
#pragma once

#include <cstdint>

namespace dmc::kernels {

template <class T>
T dot(const T* a, const T* b, int64_t n) {
  constexpr int64_t kLanes = 16;  // independent sums, so that the loop vectorizes
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  T sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (T lane : lanes) sum += lane;
  return sum;
}

}  // namespace dmc::kernels

// Rotary position embedding, half-split form (Su et al. 2021; the pairing of Hugging Face's Llama):
// channel i is rotated with channel i + d/2 by the angle position * theta^(-2i/d).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dmc::kernels {

// cos and sin for positions 0..positions-1, each [positions][d/2]. Angles are computed in f64.
struct RopeTable {
  // frequencies: radians a position for each of the d/2 channel pairs (a scaled rope's differ from
  // theta's powers).
  RopeTable(int64_t position_count, std::span<const double> frequencies);
  RopeTable(int64_t position_count, int64_t dim, double theta);
  // From now on a vector whose last channel is 0 keeps it 0 when it is rotated.
  void keep_last_zero();
  int64_t positions, head_dim;
  std::vector<float> cos, sin;
  const float* cos_at(int64_t position) const { return cos.data() + position * (head_dim / 2); }
  const float* sin_at(int64_t position) const { return sin.data() + position * (head_dim / 2); }
};

// Rotates one vector of d channels; `in` may be `out`. direction -1 rotates back (the transpose,
// which is the backward pass).
void rotate(const float* in, float* out, int64_t head_dim, const float* cos, const float* sin,
            float direction = 1.0f);

}  // namespace dmc::kernels

// Rows of numbers in groups: weights of 4 and 8 bits, and the 8-bit activations that meet them.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace dmc::kernels {

// Inputs that share a scale. A row whose inputs are no multiple of it ends in a group that is
// filled with zeros.
constexpr int64_t kGroup = 32;

constexpr bool in_groups(DType type) { return type == DType::kI4 || type == DType::kI8Groups; }
constexpr int64_t groups_of(int64_t inputs) { return (inputs + kGroup - 1) / kGroup; }

// One group of one row of activations: x[i] is about scale * numbers[i], and `sum` is
// scale * (sum of the numbers). offsets: -128 times the sum of the numbers of the first and of the
// second half. If one of them was not finite, the scale is NaN.
struct ActivationGroup {
  int8_t numbers[kGroup];
  float scale, sum;
  int32_t offsets[2];
};

// Whole numbers as a file has them: weight i is scales[i / group] * numbers[i] +
// minima[i / group]. `group` is 32, or 16 where the file has no minima.
struct StoredGroups {
  const int8_t* numbers;
  int64_t group;
  const float* scales;
  const float* minima;  // null: none
};

// One group of the 64 outputs of a block as it lies in memory: weight = scale * number + minimum.
// scales and minima are f16. Each 64 bytes of `numbers` belong to 16 outputs and the same inputs of
// each, four a 32-bit lane, as products of 8-bit numbers are summed.
struct WeightGroup4 {
  static constexpr int64_t kOutputs = 64, kOutputsAside = 16, kInputsAside = 8,
                           kInputsOfScale = kGroup;

  uint16_t scales[kOutputs], minima[kOutputs];
  // 0..15: [o / 16][i / 8][o % 16 * 4 + i % 4], input i in the lower half of a byte and input i + 4
  // in the upper one.
  uint8_t numbers[kOutputs / kOutputsAside][kGroup / kInputsAside][kOutputsAside * 4];

  int number(int64_t output, int64_t input) const;
  float scale(int64_t output, int64_t input) const;
  float weight(int64_t output, int64_t input) const;
  // Numbers 0..15 if there are minima, else -8..7; what is beyond their `count` is 0.
  void set(int64_t output, const int8_t* row, int64_t count, const float* scale,
           const float* minimum);
  void round(int64_t output, const float* weights, int64_t count);
};

struct WeightGroup8 {
  static constexpr int64_t kOutputs = 64, kOutputsAside = 16, kInputsAside = 4, kInputsOfScale = 16;

  uint16_t scales[2][kOutputs], minima[kOutputs];  // scales: of inputs 0..15 and 16..31
  // 128 + the number, which is -128..127: [o / 16][i / 4][o % 16 * 4 + i % 4].
  uint8_t numbers[kOutputs / kOutputsAside][kGroup / kInputsAside][kOutputsAside * 4];

  int number(int64_t output, int64_t input) const;
  float scale(int64_t output, int64_t input) const;
  float weight(int64_t output, int64_t input) const;
  // scale: two of them.
  void set(int64_t output, const int8_t* row, int64_t count, const float* scale,
           const float* minimum);
  void round(int64_t output, const float* weights, int64_t count);
};

// Calls fn with a value of the group that weights of kI4 or kI8Groups consist of.
template <class Fn>
auto with_group(DType type, Fn&& fn) {
  return type == DType::kI4 ? fn(WeightGroup4()) : fn(WeightGroup8());
}

// The numbers 0..15, scale and minimum (f16) that are close to the `count` <= kGroup weights:
// round to nearest between their extremes, which are then moved to where the squared error is
// least. A weight that is not finite makes the scale NaN.
void round_to_4_bits(const float* weights, int64_t count, int8_t* numbers, float* scale,
                     float* minimum);

}  // namespace dmc::kernels

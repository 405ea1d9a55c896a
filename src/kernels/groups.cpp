#include "kernels/groups.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/dtype.h"

namespace dmc::kernels {
namespace {

constexpr float kMostNumber = 15.0f, kLargestF16 = 65504.0f;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int kRefinements = 4;

struct Fit {
  int8_t numbers[kGroup];
  float scale, minimum;
  double error;  // squared
};

float nearest_f16(float x) {
  return f16_to_f32(f32_to_f16(std::clamp(x, -kLargestF16, kLargestF16)));
}

// The nearest numbers with a given scale and minimum, once these are f16.
Fit fit_to(std::span<const float> weights, float scale, float minimum) {
  Fit fit{{}, nearest_f16(scale), nearest_f16(minimum), 0.0};
  const float inverse = fit.scale > 0.0f ? 1.0f / fit.scale : 0.0f;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float number =
        std::clamp(std::nearbyint((weights[i] - fit.minimum) * inverse), 0.0f, kMostNumber);
    fit.numbers[i] = static_cast<int8_t>(number);
    const double off = static_cast<double>(fit.scale) * number + fit.minimum - weights[i];
    fit.error += off * off;
  }
  return fit;
}

// Scale and minimum of least squares for the numbers that a fit has; false if there is no such
// line.
bool line_through(std::span<const float> weights, const Fit& fit, float* scale, float* minimum) {
  double n = 0, x = 0, xx = 0, y = 0, xy = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double number = fit.numbers[i], weight = weights[i];
    n += 1.0, x += number, xx += number * number, y += weight, xy += number * weight;
  }
  const double spread = n * xx - x * x;
  if (spread <= 0.0) return false;
  *scale = static_cast<float>((n * xy - x * y) / spread);
  *minimum = static_cast<float>((y * xx - x * xy) / spread);
  return *scale > 0.0f;
}

bool all_finite(std::span<const float> weights) {
  return std::ranges::all_of(weights, [](float x) { return std::isfinite(x); });
}

// -127..127 and the scale, an f16.
void round_to_8_bits(std::span<const float> weights, int8_t* numbers, float* scale) {
  float most = 0.0f;
  for (float weight : weights) most = std::max(most, std::abs(weight));
  *scale = all_finite(weights) ? nearest_f16(most / 127.0f) : kNaN;
  const float inverse = *scale > 0.0f ? 1.0f / *scale : 0.0f;
  for (float weight : weights) {
    const float number = std::clamp(std::nearbyint(weight * inverse), -127.0f, 127.0f);
    *numbers++ = inverse > 0.0f ? static_cast<int8_t>(number) : int8_t{0};
  }
}

}  // namespace

void round_to_4_bits(const float* weights, int64_t count, int8_t* numbers, float* scale,
                     float* minimum) {
  const std::span all(weights, static_cast<size_t>(count));
  if (!all_finite(all)) {
    std::fill_n(numbers, count, int8_t{0});
    *scale = kNaN;
    *minimum = 0.0f;
    return;
  }
  const auto [least, most] = std::ranges::minmax(all);
  Fit best = fit_to(all, (most - least) / kMostNumber, least), next = best;
  float step = 0.0f, start = 0.0f;
  for (int i = 0; i < kRefinements && line_through(all, next, &step, &start); ++i) {
    next = fit_to(all, step, start);
    if (next.error < best.error) best = next;
  }
  std::copy_n(best.numbers, count, numbers);
  *scale = best.scale;
  *minimum = best.minimum;
}

namespace {

int shift_of(int64_t input) { return input % WeightGroup4::kInputsAside < 4 ? 0 : 4; }

// A group's byte with input i of output o.
template <class Group>
auto& byte_of(Group& group, int64_t output, int64_t input) {
  return group.numbers[output / group.kOutputsAside][input / group.kInputsAside]
                      [output % group.kOutputsAside * 4 + input % 4];
}

template <class Group>
float weight_in(const Group& group, int64_t output, int64_t input) {
  return group.scale(output, input) * static_cast<float>(group.number(output, input)) +
         f16_to_f32(group.minima[output]);
}

}  // namespace

int WeightGroup4::number(int64_t output, int64_t input) const {
  return byte_of(*this, output, input) >> shift_of(input) & 15;
}

float WeightGroup4::scale(int64_t output, int64_t /*input*/) const {
  return f16_to_f32(scales[output]);
}

float WeightGroup4::weight(int64_t output, int64_t input) const {
  return weight_in(*this, output, input);
}

void WeightGroup4::set(int64_t output, const int8_t* row, int64_t count, const float* scale,
                       const float* minimum) {
  const int middle = minimum != nullptr ? 0 : 8;
  scales[output] = f32_to_f16(*scale);
  minima[output] = f32_to_f16(minimum != nullptr ? *minimum : -8.0f * *scale);
  for (int64_t i = 0; i < kGroup; ++i) {
    const int number = i < count ? row[i] + middle : 0;
    uint8_t& to = byte_of(*this, output, i);
    to = static_cast<uint8_t>((to & ~(15 << shift_of(i))) | (number & 15) << shift_of(i));
  }
}

void WeightGroup4::round(int64_t output, const float* weights, int64_t count) {
  int8_t rounded[kGroup];
  float scale, minimum;
  round_to_4_bits(weights, count, rounded, &scale, &minimum);
  set(output, rounded, count, &scale, &minimum);
}

int WeightGroup8::number(int64_t output, int64_t input) const {
  return byte_of(*this, output, input) - 128;
}

float WeightGroup8::scale(int64_t output, int64_t input) const {
  return f16_to_f32(scales[input / kInputsOfScale][output]);
}

float WeightGroup8::weight(int64_t output, int64_t input) const {
  return weight_in(*this, output, input);
}

void WeightGroup8::set(int64_t output, const int8_t* row, int64_t count, const float* scale,
                       const float* minimum) {
  for (int half = 0; half < 2; ++half) scales[half][output] = f32_to_f16(scale[half]);
  minima[output] = minimum != nullptr ? f32_to_f16(*minimum) : uint16_t{0};
  for (int64_t i = 0; i < kGroup; ++i) {
    byte_of(*this, output, i) = static_cast<uint8_t>((i < count ? row[i] : 0) + 128);
  }
}

void WeightGroup8::round(int64_t output, const float* weights, int64_t count) {
  constexpr int64_t kHalf = kGroup / 2;
  int8_t rounded[kGroup] = {};
  float scale[2] = {};
  for (int64_t begin = 0; begin < count; begin += kHalf) {
    round_to_8_bits(std::span(weights + begin, static_cast<size_t>(std::min(kHalf, count - begin))),
                    rounded + begin, &scale[begin / kHalf]);
  }
  set(output, rounded, count, scale, nullptr);
}

}  // namespace dmc::kernels

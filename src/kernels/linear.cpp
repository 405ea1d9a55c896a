#include "kernels/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/backend.h"
#include "kernels/rounding.h"

namespace dmc::kernels {
namespace {

// Rows of x that one piece of work covers: a widened strip of weights serves all of them.
constexpr int64_t kPieceRows = 240;

// x in panels of kPanelRows rows, input by input: [panel][inputs][rows of the panel].
std::vector<float> pack_rows(const float* x, int64_t rows, int64_t inputs) {
  std::vector<float> packed(static_cast<size_t>(rows * inputs));
  const int64_t panels = (rows + kPanelRows - 1) / kPanelRows;
  parallel_for(0, panels, 4, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t begin = panel * kPanelRows, count = std::min(kPanelRows, rows - begin);
      float* to = packed.data() + begin * inputs;
      for (int64_t i = 0; i < inputs; ++i) {
        for (int64_t r = 0; r < count; ++r) *to++ = x[(begin + r) * inputs + i];
      }
    }
  });
  return packed;
}

// Calls fn with an integer as large as an element.
template <class Fn>
void with_size_of(DType type, Fn&& fn) {
  switch (dtype_size(type)) {
    case 1:
      return fn(uint8_t());
    case 2:
      return fn(uint16_t());
    default:
      return fn(uint32_t());
  }
}

// Copies n elements that lie `from_stride` and `to_stride` bytes apart.
template <class T>
void copy_apart(const std::byte* from, size_t from_stride, std::byte* to, size_t to_stride,
                int64_t n, T /*element*/) {
  for (int64_t i = 0; i < n; ++i, from += from_stride, to += to_stride) {
    std::memcpy(to, from, sizeof(T));
  }
}

}  // namespace

PackedWeights::PackedWeights(int64_t outputs, int64_t inputs, DType type)
    : outputs_(outputs), inputs_(inputs), type_(type) {
  DMC_CHECK(outputs > 0 && inputs > 0);
  block_bytes_ = kBlock * inputs * static_cast<int64_t>(dtype_size(type));
  if (type == DType::kI8) block_bytes_ += kBlock * static_cast<int64_t>(sizeof(float));
  memory_ = allocate_huge(bytes());
  std::memset(memory_.get(), 0, static_cast<size_t>(bytes()));
}

const float* PackedWeights::scales(int64_t index) const {
  if (type_ != DType::kI8) return nullptr;
  return reinterpret_cast<const float*>(block(index) + kBlock * inputs_);
}

std::byte* PackedWeights::place(int64_t output) const {
  return memory_.get() + output / kBlock * block_bytes_ +
         output % kBlock * static_cast<int64_t>(dtype_size(type_));
}

float* PackedWeights::scale_of(int64_t output) const {
  const float* const of_block = scales(output / kBlock);
  return of_block == nullptr ? nullptr : const_cast<float*>(of_block) + output % kBlock;
}

void PackedWeights::set_rows(int64_t first, int64_t count, const float* rows) {
  DMC_CHECK(first >= 0 && count >= 0 && first + count <= outputs_);
  std::vector<std::byte> rounded(static_cast<size_t>(inputs_) * dtype_size(type_));
  for (int64_t r = 0; r < count; ++r) {
    float scale = 1.0f;
    round_row(rows + r * inputs_, inputs_, type_, rounded.data(), &scale);
    set_rounded_row(first + r, rounded.data(), scale);
  }
}

void PackedWeights::set_rounded_row(int64_t row, const std::byte* rounded, float scale) {
  DMC_CHECK(row >= 0 && row < outputs_);
  if (float* const to = scale_of(row)) *to = scale;
  with_size_of(type_, [&](auto element) {
    copy_apart(rounded, sizeof(element), place(row), kBlock * sizeof(element), inputs_, element);
  });
}

void PackedWeights::get_rounded_row(int64_t row, std::byte* rounded, float* scale) const {
  DMC_CHECK(row >= 0 && row < outputs_);
  if (const float* const from = scale_of(row)) *scale = *from;
  with_size_of(type_, [&](auto element) {
    copy_apart(place(row), kBlock * sizeof(element), rounded, sizeof(element), inputs_, element);
  });
}

void PackedWeights::get_row(int64_t row, float* to) const {
  std::vector<std::byte> rounded(static_cast<size_t>(inputs_) * dtype_size(type_));
  float scale = 0.0f;
  get_rounded_row(row, rounded.data(), &scale);
  widen_row(rounded.data(), inputs_, type_, &scale, to);
}

void linear(const PackedWeights& weights, const float* bias, const float* x, int64_t rows,
            float* y) {
  if (rows == 0) return;
  std::vector<float> packed;
  if (rows > 1) packed = pack_rows(x, rows, weights.inputs());
  const float* const panels = rows > 1 ? packed.data() : x;
  const int64_t strips = (rows + kPieceRows - 1) / kPieceRows;
  parallel_for(0, weights.blocks() * strips, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t block = piece / strips, begin = piece % strips * kPieceRows;
      backend().linear_block(weights, block, panels + begin * weights.inputs(),
                             std::min(kPieceRows, rows - begin), bias,
                             y + begin * weights.outputs());
    }
  });
}

}  // namespace dmc::kernels

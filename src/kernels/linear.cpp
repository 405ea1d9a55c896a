#include "kernels/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/backend.h"

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

std::byte* PackedWeights::element(int64_t output, int64_t input) const {
  const int64_t in_block = input * kBlock + output % kBlock;
  return memory_.get() + output / kBlock * block_bytes_ +
         in_block * static_cast<int64_t>(dtype_size(type_));
}

void PackedWeights::set_rows(int64_t first, int64_t count, const float* rows) {
  DMC_CHECK(first >= 0 && count >= 0 && first + count <= outputs_);
  for (int64_t r = 0; r < count; ++r) {
    const float* const row = rows + r * inputs_;
    float factor = 1.0f;
    if (type_ == DType::kI8) {
      float largest = 0.0f;
      for (int64_t i = 0; i < inputs_; ++i) largest = std::max(largest, std::abs(row[i]));
      factor = largest > 0.0f ? 127.0f / largest : 0.0f;
      const int64_t output = first + r;
      const_cast<float*>(scales(output / kBlock))[output % kBlock] = largest / 127.0f;
    }
    for (int64_t i = 0; i < inputs_; ++i) {
      std::byte* const to = element(first + r, i);
      switch (type_) {
        case DType::kF32:
          std::memcpy(to, &row[i], sizeof(float));
          break;
        case DType::kI8:
          *to = static_cast<std::byte>(static_cast<int8_t>(std::lrint(row[i] * factor)));
          break;
        default: {
          const uint16_t half = type_ == DType::kF16 ? f32_to_f16(row[i]) : f32_to_bf16(row[i]);
          std::memcpy(to, &half, sizeof(half));
        }
      }
    }
  }
}

void PackedWeights::get_row(int64_t row, float* to) const {
  DMC_CHECK(row >= 0 && row < outputs_);
  for (int64_t i = 0; i < inputs_; ++i) {
    const std::byte* const from = element(row, i);
    uint16_t half = 0;
    switch (type_) {
      case DType::kF32:
        std::memcpy(&to[i], from, sizeof(float));
        break;
      case DType::kI8:
        to[i] = scales(row / kBlock)[row % kBlock] * static_cast<float>(static_cast<int8_t>(*from));
        break;
      default:
        std::memcpy(&half, from, sizeof(half));
        to[i] = type_ == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
  }
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

#include "kernels/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/dtype.h"
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

// Bytes of a block of outputs.
int64_t block_size(int64_t inputs, DType type) {
  constexpr int64_t kOutputs = PackedWeights::kBlock;
  if (in_groups(type)) {
    return groups_of(inputs) * with_group(type, [](auto group) { return int64_t{sizeof(group)}; });
  }
  const int64_t numbers = kOutputs * inputs * static_cast<int64_t>(dtype_size(type));
  return numbers + (type == DType::kI8 ? kOutputs * int64_t{sizeof(float)} : 0);
}

// Calls fn(first row, rows, block) for pieces of work of any threads.
template <class Fn>
void for_each_piece(const PackedWeights& weights, int64_t rows, Fn&& fn) {
  const int64_t strips = (rows + kPieceRows - 1) / kPieceRows;
  parallel_for(0, weights.blocks() * strips, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t begin = piece % strips * kPieceRows;
      fn(begin, std::min(kPieceRows, rows - begin), piece / strips);
    }
  });
}

void linear_in_groups(const PackedWeights& weights, const float* bias, const float* x, int64_t rows,
                      float* y) {
  const int64_t inputs = weights.inputs(), groups = groups_of(inputs);
  std::vector<ActivationGroup> rounded(static_cast<size_t>(rows * groups));
  parallel_for(0, rows, 4, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      backend().round_activations(x + r * inputs, inputs, &rounded[r * groups]);
    }
  });
  for_each_piece(weights, rows, [&](int64_t begin, int64_t count, int64_t block) {
    backend().group_block(weights, block, &rounded[begin * groups], count, bias,
                          y + begin * weights.outputs());
  });
}

// Calls fn(group, its index, its inputs) for the groups that output `row` is in.
template <class Weights, class Fn>
void each_group(Weights& weights, int64_t row, Fn&& fn) {
  with_group(weights.type(), [&](auto kind) {
    auto* const groups = const_cast<decltype(kind)*>(
        weights.template groups<decltype(kind)>(row / PackedWeights::kBlock));
    const int64_t inputs = weights.inputs();
    for (int64_t g = 0; g < groups_of(inputs); ++g) {
      fn(groups[g], g, std::min(kGroup, inputs - g * kGroup));
    }
  });
}

}  // namespace

PackedWeights::PackedWeights(int64_t outputs, int64_t inputs, DType type)
    : outputs_(outputs), inputs_(inputs), block_bytes_(block_size(inputs, type)), type_(type) {
  static_assert(kBlock == WeightGroup4::kOutputs && kBlock == WeightGroup8::kOutputs);
  DMC_CHECK(outputs > 0 && inputs > 0);
  memory_ = allocate_huge(bytes());
  std::memset(memory_.get(), 0, static_cast<size_t>(bytes()));
}

const float* PackedWeights::scales(int64_t index) const {
  if (type_ != DType::kI8) return nullptr;
  return reinterpret_cast<const float*>(block(index) + kBlock * inputs_);
}

std::byte* PackedWeights::place(int64_t output) const {
  DMC_CHECK(!in_groups(type_));
  return memory_.get() + output / kBlock * block_bytes_ +
         output % kBlock * static_cast<int64_t>(dtype_size(type_));
}

float* PackedWeights::scale_of(int64_t output) const {
  const float* const of_block = scales(output / kBlock);
  return of_block == nullptr ? nullptr : const_cast<float*>(of_block) + output % kBlock;
}

void PackedWeights::set_rows(int64_t first, int64_t count, const float* rows) {
  DMC_CHECK(first >= 0 && count >= 0 && first + count <= outputs_);
  if (in_groups(type_)) {
    for (int64_t r = 0; r < count; ++r) {
      each_group(*this, first + r, [&](auto& group, int64_t g, int64_t inputs) {
        group.round((first + r) % kBlock, rows + r * inputs_ + g * kGroup, inputs);
      });
    }
    return;
  }
  std::vector<std::byte> rounded(static_cast<size_t>(inputs_) * dtype_size(type_));
  for (int64_t r = 0; r < count; ++r) {
    const float* const row = rows + r * inputs_;
    float scale = 1.0f;
    round_row(row, inputs_, type_, rounded.data(), &scale);
    set_rounded_row(first + r, rounded.data(), scale);
  }
}

void PackedWeights::set_groups(int64_t row, const StoredGroups& from) {
  DMC_CHECK(row >= 0 && row < outputs_ && in_groups(type_));
  DMC_CHECK(from.group == kGroup || (from.group == kGroup / 2 && type_ == DType::kI8Groups));
  DMC_CHECK(from.group == kGroup || from.minima == nullptr);
  each_group(*this, row, [&](auto& group, int64_t g, int64_t inputs) {
    const int64_t first = g * kGroup / from.group, last = (g * kGroup + inputs - 1) / from.group;
    const float scales[] = {from.scales[first], from.scales[last]};
    group.set(row % kBlock, from.numbers + g * kGroup, inputs, scales,
              from.minima == nullptr ? nullptr : from.minima + g);
  });
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
  DMC_CHECK(row >= 0 && row < outputs_);
  if (in_groups(type_)) {
    return each_group(*this, row, [&](const auto& group, int64_t g, int64_t inputs) {
      for (int64_t i = 0; i < inputs; ++i) to[g * kGroup + i] = group.weight(row % kBlock, i);
    });
  }
  std::vector<std::byte> rounded(static_cast<size_t>(inputs_) * dtype_size(type_));
  float scale = 0.0f;
  get_rounded_row(row, rounded.data(), &scale);
  widen_row(rounded.data(), inputs_, type_, &scale, to);
}

void linear(const PackedWeights& weights, const float* bias, const float* x, int64_t rows,
            float* y) {
  if (rows == 0) return;
  if (in_groups(weights.type())) return linear_in_groups(weights, bias, x, rows, y);
  std::vector<float> packed;
  if (rows > 1) packed = pack_rows(x, rows, weights.inputs());
  const float* const panels = rows > 1 ? packed.data() : x;
  for_each_piece(weights, rows, [&](int64_t begin, int64_t count, int64_t block) {
    backend().linear_block(weights, block, panels + begin * weights.inputs(), count, bias,
                           y + begin * weights.outputs());
  });
}

}  // namespace dmc::kernels

// The blocks in which GGUF files store numbers of 4 to 8 bits (ggml's formats, described in
// ggml-common.h of llama.cpp): whole numbers with a scale for each group of 16 or 32, in some with
// a minimum, too.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/gguf.h"
#include "model/matrix_source.h"

namespace dmc::model {

struct BlockFormat {
  std::string_view name;
  WeightFormat format;
  // The numbers of a block, one a byte, and scale and minimum of each of its groups.
  void (*unpack)(const std::byte* block, int8_t* numbers, float* scales, float* minima);
};

constexpr int64_t kLargestBlock = 256, kMostGroups = 16;

// Null for a type of floats.
const BlockFormat* block_format(const GgufType& type);

}  // namespace dmc::model

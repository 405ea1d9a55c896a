// A matrix product with few rows, as in decoding: bound by reading the weights once, so each lane
// streams packets of several outputs' weights and keeps the sums of all rows in registers.
#pragma once

#include <cstdint>

#include "kernels/cuda/lanes/packet.h"

namespace dmc::kernels::cuda {

// y [rows][outputs] f32 = x [rows][inputs] W^T + bias (null: none). W [outputs][inputs] is f32,
// bf16, f16 or, with a scale for each output, int8; x is of row_type(). Their rows start at
// multiples of 16 bytes.
struct FewRows {
  const std::byte *weights, *x;
  const float* scales;  // [outputs]; null but for int8
  const float* bias;
  float* y;
  int64_t outputs, inputs;
  int rows;
};

// What activations are in that meet such weights. Whole numbers of 8 bits are exact in bf16, too.
constexpr DType row_type(DType weights) { return weights == DType::kI8 ? DType::kBF16 : weights; }

constexpr int kMostFewRows = 8;
constexpr int kOutputsAtOnce = 4;  // of a team: as many loads are under way in each lane

// Whether multiply_few_rows can take such a product, kMostFewRows at a time. Weights of 8 bits are
// better read several times than widened and then read by a product of 16 bits.
DMC_HOST_DEVICE bool takes_few_rows(DType type, int64_t inputs, int64_t rows) {
  const int64_t most = type == DType::kI8 ? 4 * kMostFewRows : kMostFewRows;
  return rows <= most && inputs % (16 / slot_number_bytes(type)) == 0;
}

// fn.operator()<N>() with the least N of 1, 2, 4 and 8 that is at least `rows`.
template <class Fn>
void with_few_rows(int rows, Fn&& fn) {
  if (rows == 1) return fn.template operator()<1>();
  if (rows == 2) return fn.template operator()<2>();
  if (rows <= 4) return fn.template operator()<4>();
  fn.template operator()<kMostFewRows>();
}

// Outputs first..first + kOutputsAtOnce - 1 (as far as there are so many) of up to kRows rows.
template <class Team, DType kType, int kRows>
DMC_DEVICE void multiply_few_rows(const FewRows& args, int64_t first) {
  constexpr DType kRowType = row_type(kType);
  constexpr int kRowNumbers = kPacketNumbers<kRowType>;
  constexpr int kParts = kPacketNumbers<kType> / kRowNumbers;  // packets of x for one of weights
  const int64_t packets = args.inputs / kPacketNumbers<kType>;
  const auto* const weights = reinterpret_cast<const Packet*>(args.weights);
  const auto* const x = reinterpret_cast<const Packet*>(args.x);
  // Rows and outputs that do not exist read the last one's numbers: no branch in the loop.
  const auto output = [&](int o) {
    return first + o < args.outputs ? first + o : args.outputs - 1;
  };
  const auto row = [&](int r) { return int64_t{r < args.rows ? r : args.rows - 1}; };
  float sums[kOutputsAtOnce][kRows] = {};
  for (int64_t p = Team::lane(); p < packets; p += Team::size()) {
    Packet w[kOutputsAtOnce];
    DMC_UNROLL
    for (int o = 0; o < kOutputsAtOnce; ++o) {
      w[o] = Team::load_once(weights + output(o) * packets + p);
    }
    DMC_UNROLL
    for (int r = 0; r < kRows; ++r) {
      DMC_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const Packet of_row = x[(row(r) * packets + p) * kParts + part];
        DMC_UNROLL
        for (int o = 0; o < kOutputsAtOnce; ++o) {
          DMC_UNROLL
          for (int i = 0; i < kRowNumbers; ++i) {
            sums[o][r] += number_of<kType, Team>(w[o], part * kRowNumbers + i) *
                          number_of<kRowType, Team>(of_row, i);
          }
        }
      }
    }
  }
  DMC_UNROLL
  for (int o = 0; o < kOutputsAtOnce; ++o) {
    DMC_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float sum = Team::sum(sums[o][r]);
      if (Team::lane() != 0 || r >= args.rows || first + o >= args.outputs) continue;
      if constexpr (is_scaled(kType)) sum *= args.scales[first + o];
      args.y[r * args.outputs + first + o] =
          args.bias != nullptr ? sum + args.bias[first + o] : sum;
    }
  }
}

}  // namespace dmc::kernels::cuda

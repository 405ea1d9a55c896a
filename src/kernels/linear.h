// Matrix products with weights: y = x W^T + b for 1 row (decoding one sequence), a few (a batch) or
// many (a prompt), all by one routine, so that a row of y has the same bits whatever other rows are
// in the call: every output is one chain of multiply-adds over the inputs in order.
//
// Weights in groups (kI4, kI8Groups) meet activations that are rounded to 8 bits, 32 inputs at a
// time, and the chain is one over groups, whose products are summed as whole numbers; for a prompt
// as for one row. Rounding moves an output by at most sum |w_i| * max|x of its group| / 254.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/huge_memory.h"
#include "kernels/groups.h"

namespace dmc::kernels {

// A weight matrix [outputs][inputs] laid out for streaming: blocks of kBlock outputs, within a
// block input by input. Missing outputs of the last block are zeros.
class PackedWeights {
 public:
  static constexpr int64_t kBlock = 64;

  // type: kF32, kBF16, kF16, kI8 with a scale per output (kernels/rounding.h), or in groups of
  // inputs of an output (kernels/groups.h): kI4 with a scale and a minimum for 32, kI8Groups with a
  // scale for 16 and a minimum for 32.
  PackedWeights(int64_t outputs, int64_t inputs, DType type);

  // Rounds rows first..first+count-1, given as f32 [count][inputs], into place. Different rows may
  // be set from different threads.
  void set_rows(int64_t first, int64_t count, const float* rows);
  // The same for one row that is rounded already, in the form that round_row() gives (`scale`
  // counts for kI8 alone). Not for weights in groups.
  void set_rounded_row(int64_t row, const std::byte* rounded, float scale);
  // What set_rounded_row() takes: the bytes of output `row`, and for kI8 its scale.
  void get_rounded_row(int64_t row, std::byte* rounded, float* scale) const;
  // For weights in groups: numbers, scales and minima as they are, but for the latter two's
  // rounding to f16. kI4 takes groups of 32, of 0..15 if there are minima, else of -8..7.
  void set_groups(int64_t row, const StoredGroups& from);
  // What output `row` holds, in f32 [inputs].
  void get_row(int64_t row, float* to) const;

  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  int64_t blocks() const { return (outputs_ + kBlock - 1) / kBlock; }
  DType type() const { return type_; }
  int64_t bytes() const { return blocks() * block_bytes_; }
  const std::byte* block(int64_t index) const { return memory_.get() + index * block_bytes_; }
  const float* scales(int64_t index) const;  // kI8: [kBlock] of a block, else null
  template <class Group>  // WeightGroup4 for kI4, else WeightGroup8: [groups_of(inputs)] of a block
  const Group* groups(int64_t index) const {
    return reinterpret_cast<const Group*>(block(index));
  }

 private:
  std::byte* place(int64_t output) const;  // of its first input; the others lie kBlock apart
  float* scale_of(int64_t output) const;   // kI8, else null

  int64_t outputs_, inputs_, block_bytes_;
  DType type_;
  HugeMemory memory_;
};

// y[rows][outputs] = x[rows][inputs] W^T + bias (null: none). y must not overlap x. Runs on all
// threads.
void linear(const PackedWeights& weights, const float* bias, const float* x, int64_t rows,
            float* y);

}  // namespace dmc::kernels

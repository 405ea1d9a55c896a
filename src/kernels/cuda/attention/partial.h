// Partial attention results of one query as rows of floats, and how rows are merged: the fragments
// of a warp, the open slot and the parts of a stream that several workers share all become such
// rows.
#pragma once

#include "kernels/cuda/lanes/portable.h"

namespace dmc::kernels::cuda {

// [kDim] output (not yet divided by the sum), then maximum (log2 units), then sum.
template <int kDim>
struct PartialRow {
  float out[kDim];
  float max, sum;
};

struct MergedState {
  float max, sum;
};

// One of the rows to merge, wherever its numbers lie.
struct RowView {
  const float* out;
  float max, sum;
  DMC_DEVICE float at(int channel) const { return out[channel]; }
};

template <int kDim>
DMC_DEVICE RowView view_of(const PartialRow<kDim>& row) {
  return {row.out, row.max, row.sum};
}

// row(i): the i-th of `count` rows. Rows are merged in this order, so the bits do not depend on who
// was ready first.
template <class Math, class Row>
DMC_DEVICE MergedState merge_states(int count, Row&& row) {
  MergedState merged{row(0).max, 0.0f};
  for (int i = 1; i < count; ++i) merged.max = row(i).max > merged.max ? row(i).max : merged.max;
  for (int i = 0; i < count; ++i) merged.sum += row(i).sum * Math::exp2(row(i).max - merged.max);
  return merged;
}

template <class Math, class Row>
DMC_DEVICE float merge_out(int count, Row&& row, const MergedState& merged, int channel) {
  float out = 0.0f;
  for (int i = 0; i < count; ++i) out += row(i).at(channel) * Math::exp2(row(i).max - merged.max);
  return out;
}

}  // namespace dmc::kernels::cuda

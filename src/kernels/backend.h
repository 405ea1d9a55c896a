// The table of what a backend implements. The functions of attention.h and linear.h split the work,
// hand it to threads and merge.
#pragma once

#include <span>
#include <string_view>

#include "kernels/attention.h"
#include "kernels/linear.h"

namespace dmc::kernels {

// Rows of x that lie interleaved in linear_block's input: as many as sums of one block of outputs
// fit into registers.
constexpr int64_t kPanelRows = 6;

struct Backend {
  std::string_view name;

  // Folds a run of slots into the states of `group` queries q [group][d], out [group][d].
  void (*attend_slots)(const PoolView& pool, const SlotRange& slots, const float* q, int group,
                       float scale, AttnState* states, float* out);

  // The same for `rows` queries at once, row r seeing only slots below visible[r]; q, out:
  // [rows][d].
  void (*attend_rows)(const PoolView& pool, const SlotRange& slots, const float* q, int64_t rows,
                      const int64_t* visible, float scale, AttnState* states, float* out);

  // One block of outputs of y [rows][outputs]. x: panels of kPanelRows rows (the last may be
  // shorter), each [inputs][rows of the panel].
  void (*linear_block)(const PackedWeights& weights, int64_t block, const float* x, int64_t rows,
                       const float* bias, float* y);

  // Rounds a row of activations to groups_of(inputs) groups.
  void (*round_activations)(const float* x, int64_t inputs, ActivationGroup* to);

  // linear_block for weights in groups (kI4). x: [rows][groups].
  void (*group_block)(const PackedWeights& weights, int64_t block, const ActivationGroup* x,
                      int64_t rows, const float* bias, float* y);

  // out[i] = silu(gate[i]) * up[i].
  void (*silu_product)(const float* gate, const float* up, int64_t count, float* out);
};

std::span<const Backend> backends();  // backend.cpp; the first is the default
// The one in use: the environment variable DMC_BACKEND, else the default. Error(kInvalidArgument)
// if it names none.
const Backend& backend();

}  // namespace dmc::kernels

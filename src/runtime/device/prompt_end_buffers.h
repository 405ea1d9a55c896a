// What choosing among a prompt's slots works in (kernels/cuda/attention/prompt_end.h), of one layer
// at a time.
#pragma once

#include "runtime/device/sequence_table.h"

namespace dmc::runtime {

struct PromptEndBuffers {
  Buffer<float> scores, weights;
  Buffer<double> attention, pooled;
  Buffer<int32_t> kept;

  PromptEndBuffers() = default;  // for policies that let a prompt end
  PromptEndBuffers(kernels::cuda::Device& device, const SequenceTableShape& shape) {
    const int64_t slots = shape.kv_heads * shape.max_positions;
    for (Buffer<float>* buffer : {&scores, &weights}) {
      *buffer = Buffer<float>(device, slots * shape.observes);
    }
    for (Buffer<double>* buffer : {&attention, &pooled}) *buffer = Buffer<double>(device, slots);
    kept = Buffer<int32_t>(device, slots);
  }
};

}  // namespace dmc::runtime

#include "kernels/cuda/attention/decode.h"

#include <string>

#include "kernels/cuda/attention/decode_kernel.cuh"

namespace dmc::kernels::cuda {

// Compiled one by one (decode_instance.cu.in).
#define DMC_SLOT_KERNEL(TYPE, DIM) extern template struct DecodeKernel<DType::TYPE, DIM>;
#include "kernels/cuda/attention/slot_kernels.inc"
#undef DMC_SLOT_KERNEL

namespace {

struct Entry {
  DType type;
  int head_dim;
  int (*blocks_at_once)();
  void (*launch)(const DecodeArguments&, Stream);
};

constexpr Entry kKernels[] = {
#define DMC_SLOT_KERNEL(TYPE, DIM)                                   \
  {DType::TYPE, DIM, DecodeKernel<DType::TYPE, DIM>::blocks_at_once, \
   DecodeKernel<DType::TYPE, DIM>::launch},
#include "kernels/cuda/attention/slot_kernels.inc"
#undef DMC_SLOT_KERNEL
};

const Entry& kernel_for(const DecodeShape& shape) {
  if (shape.group < 1 || shape.group > kMaxGroup) {
    throw invalid_argument("CUDA decode attention takes 1 to " + std::to_string(kMaxGroup) +
                           " query heads for a KV head, not " + std::to_string(shape.group));
  }
  for (const Entry& entry : kKernels) {
    if (entry.type == shape.slot_type && entry.head_dim == shape.head_dim) return entry;
  }
  throw invalid_argument("there is no CUDA decode attention for slots of type " +
                         std::string(dtype_name(shape.slot_type)) + " with head size " +
                         std::to_string(shape.head_dim));
}

}  // namespace

int decode_workers(const DecodeShape& shape) { return kernel_for(shape).blocks_at_once(); }

void decode_attention(const DecodeShape& shape, const PagePool& pool, const Streams& streams,
                      const Batch& batch, int layer, const float* q, float scale, float* out,
                      const DecodeWorkspace& workspace, Stream stream) {
  const Entry& kernel = kernel_for(shape);
  DMC_CHECK(layer >= 0 && layer < workspace.layers && batch.items() <= workspace.max_items);
  DMC_CHECK(shape.head_dim == workspace.head_dim && shape.group == workspace.group);
  DMC_CHECK(pool.page_slots % kTileSlots == 0 && pool.page_bytes % 16 == 0);
  kernel.launch({pool, streams, batch, layer, q, scale * kLog2e, out, shape.group,
                 workspace.plan(layer), workspace.arrivals(), workspace.partials()},
                stream);
}

}  // namespace dmc::kernels::cuda

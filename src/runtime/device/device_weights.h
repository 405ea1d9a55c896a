// A decoder's weights in a device's memory: matrices row by row in f32, bf16, f16 or int8, vectors
// in f32.
#pragma once

#include <memory>

#include "runtime/device/buffer.h"
#include "runtime/weights.h"

namespace dmc::runtime {

struct DeviceMatrix {
  Buffer<std::byte> data;
  int64_t outputs = 0, inputs = 0;
  DType type = DType::kF32;
  Buffer<float> scales;  // of outputs; empty but for int8

  kernels::cuda::Matrix view() const { return {data.get(), outputs, inputs, type, scales.get()}; }
};

struct DeviceLinear {
  DeviceMatrix matrix;
  Buffer<float> bias;  // empty: none
};

struct DeviceNorm {
  Buffer<float> weight, bias;  // empty: none

  bool present() const { return weight.size() > 0; }
};

struct DeviceLayer {
  DeviceNorm attention_norm, mlp_norm, q_norm, k_norm;
  DeviceLinear qkv, o, up, down;
  // As runtime::Adapter, in f32; empty: none.
  DeviceNorm adapter_norm;
  DeviceLinear adapter;
};

struct DeviceWeights {
  DType type = DType::kF32;  // of what products take; adapters' are f32
  DeviceMatrix embedding;
  Buffer<float> positions, token_type;  // as DecoderWeights
  DeviceNorm embedding_norm, final_norm, head_norm;
  std::vector<DeviceLayer> layers;
  DeviceLinear head_transform;  // its matrix empty: none
  DeviceLinear head;            // its matrix empty: the embedding's

  kernels::cuda::Matrix head_view() const {
    return head.matrix.data.get() != nullptr ? head.matrix.view() : embedding.view();
  }
};

// Error(kInvalidArgument) for a vocabulary beyond kMostSampledTokens.
void require_device_family(const model::ModelConfig& config);

// In the types that `model` has. Error(kInvalidArgument) as require_device_family().
std::shared_ptr<const DeviceWeights> upload_weights(kernels::cuda::Device& device,
                                                    const Model& model);

}  // namespace dmc::runtime

#include "runtime/device/device_weights.h"

#include <algorithm>

#include "base/parallel.h"
#include "kernels/cuda/products/few_rows.h"
#include "kernels/rounding.h"

namespace dmc::runtime {
namespace {

using kernels::cuda::Device;

// Rows brought in order on the host at a time: enough to keep all cores and the copy busy.
constexpr int64_t kRowsAtOnce = 1024;

// The device has no products with weights in groups: they become bf16 there.
DType device_type(DType type) { return kernels::in_groups(type) ? DType::kBF16 : type; }

void copy_row(const kernels::PackedWeights& from, int64_t row, std::byte* to, float* scale) {
  if (!kernels::in_groups(from.type())) return from.get_rounded_row(row, to, scale);
  std::vector<float> wide(static_cast<size_t>(from.inputs()));
  from.get_row(row, wide.data());
  kernels::round_row(wide.data(), from.inputs(), device_type(from.type()), to, scale);
}

DeviceMatrix upload(Device& device, const kernels::PackedWeights& from) {
  const DType type = device_type(from.type());
  const int64_t row_bytes = from.inputs() * static_cast<int64_t>(dtype_size(type));
  DeviceMatrix to{Buffer<std::byte>(device, from.outputs() * row_bytes),
                  from.outputs(),
                  from.inputs(),
                  type,
                  {}};
  std::vector<std::byte> rows(
      static_cast<size_t>(std::min(kRowsAtOnce, from.outputs()) * row_bytes));
  std::vector<float> scales(static_cast<size_t>(from.outputs()));
  for (int64_t begin = 0; begin < from.outputs(); begin += kRowsAtOnce) {
    const int64_t end = std::min(begin + kRowsAtOnce, from.outputs());
    parallel_for(begin, end, 16, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        copy_row(from, r, &rows[static_cast<size_t>((r - begin) * row_bytes)],
                 &scales[static_cast<size_t>(r)]);
      }
    });
    to.data.upload(std::span(rows).first(static_cast<size_t>((end - begin) * row_bytes)),
                   begin * row_bytes);
  }
  if (is_scaled(type)) to.scales = Buffer<float>(device, std::span<const float>(scales));
  return to;
}

Buffer<float> upload(Device& device, const std::vector<float>& from) {
  return from.empty() ? Buffer<float>() : Buffer<float>(device, std::span(from));
}

DeviceLinear upload(Device& device, const Linear& from) {
  return {upload(device, from.weights), upload(device, from.bias)};
}

DeviceNorm upload(Device& device, const Norm& from) {
  return {upload(device, from.weight), upload(device, from.bias)};
}

}  // namespace

void require_device_family(const model::ModelConfig& config) {
  if (config.vocab_size > kernels::cuda::kMostSampledTokens) {
    throw invalid_argument("device", "the GPU chooses among " +
                                         std::to_string(kernels::cuda::kMostSampledTokens) +
                                         " tokens at most, the model has " +
                                         std::to_string(config.vocab_size) + "; run it on the CPU");
  }
}

std::shared_ptr<const DeviceWeights> upload_weights(Device& device, const Model& model) {
  require_device_family(model.config);
  const DecoderWeights& from = model.weights;
  auto to = std::make_shared<DeviceWeights>();
  to->type = kernels::cuda::row_type(device_type(from.embedding->type()));
  to->embedding = upload(device, *from.embedding);
  for (const LayerWeights& layer : from.layers) {
    to->layers.push_back({upload(device, layer.attention_norm), upload(device, layer.mlp_norm),
                          upload(device, layer.q_norm), upload(device, layer.k_norm),
                          upload(device, layer.qkv), upload(device, layer.o),
                          upload(device, layer.up), upload(device, layer.down)});
    if (!layer.adapter) continue;
    to->layers.back().adapter_norm = upload(device, layer.adapter->norm);
    to->layers.back().adapter = upload(device, layer.adapter->projection);
  }
  to->positions = upload(device, from.positions);
  to->token_type = upload(device, from.token_type);
  to->embedding_norm = upload(device, from.embedding_norm);
  to->final_norm = upload(device, from.final_norm);
  to->head_norm = upload(device, from.head_norm);
  if (from.head_transform) to->head_transform = upload(device, *from.head_transform);
  if (from.head != from.embedding) to->head.matrix = upload(device, *from.head);
  to->head.bias = upload(device, from.head_bias);
  return to;
}

}  // namespace dmc::runtime

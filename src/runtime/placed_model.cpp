#include "runtime/placed_model.h"

namespace dmc::runtime {

PlacedModel::PlacedModel(std::shared_ptr<const Model> model,
                         std::shared_ptr<kernels::cuda::Device> device)
    : PlacedModel(std::move(model)) {
  if (device != nullptr) on_ = upload_model(std::move(device), std::move(on_.model));
}

std::unique_ptr<Runner> PlacedModel::make_runner(const RunnerOptions& options,
                                                 int sequences) const {
  if (shards_.size() > 1) return std::make_unique<TensorParallelRunner>(shards_, options);
  if (on_.device == nullptr) return std::make_unique<DecoderRunner>(on_.model, options);
  return std::make_unique<DeviceRunner>(on_, options, DeviceRoom{.sequences = sequences});
}

}  // namespace dmc::runtime

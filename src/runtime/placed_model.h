// A model and where it runs. All of its runners share its weights.
#pragma once

#include <memory>

#include "runtime/decoder_runner.h"
#include "runtime/device/device_runner.h"
#include "runtime/tensor_parallel_runner.h"

namespace dmc::runtime {

class PlacedModel {
 public:
  PlacedModel(std::shared_ptr<const Model> model) : on_{nullptr, std::move(model), nullptr} {}
  // On a device, whose memory it takes; without one on the CPU. Error(kInvalidArgument) as
  // upload_model().
  PlacedModel(std::shared_ptr<const Model> model, std::shared_ptr<kernels::cuda::Device> device);

  // On the CPU, a thread for each of its shards.
  explicit PlacedModel(std::vector<std::shared_ptr<const Model>> shards)
      : on_{nullptr, shards.at(0), nullptr}, shards_(std::move(shards)) {}

  // With shards, the weights are the first one's.
  const Model& model() const { return *on_.model; }
  std::shared_ptr<kernels::cuda::Device> device() const { return on_.device; }  // null: the CPU
  // Room for that many sequences at a time is made on a device; the CPU takes any number. Errors as
  // those of DecoderRunner, DeviceRunner or TensorParallelRunner.
  std::unique_ptr<Runner> make_runner(const RunnerOptions& options,
                                      int sequences = DeviceRoom().sequences) const;

 private:
  DeviceModel on_;
  std::vector<std::shared_ptr<const Model>> shards_;  // empty: the model is whole
};

}  // namespace dmc::runtime

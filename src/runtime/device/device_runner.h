// The model on a device: the same contract as DecoderRunner, whose tokens it must choose.
#pragma once

#include <map>
#include <memory>

#include "runtime/decoder_runner.h"
#include "runtime/device/device_decoder.h"

namespace dmc::runtime {

// A model whose weights lie in a device's memory; several runners may share it.
struct DeviceModel {
  std::shared_ptr<kernels::cuda::Device> device;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const DeviceWeights> weights;
};

// Error(kInvalidArgument) as upload_weights().
DeviceModel upload_model(std::shared_ptr<kernels::cuda::Device> device,
                         std::shared_ptr<const Model> model);

struct DeviceRoom {
  int sequences = 8;  // at a time, at most
  int64_t pages = 0;  // as SequenceTableShape::pages
};

class DeviceRunner : public Runner {
 public:
  // Error(kInvalidArgument) as DecoderRunner, for a policy or shape that the device does not have;
  // Error(kExhausted) if its memory does not do.
  DeviceRunner(const DeviceModel& on, const RunnerOptions& options, const DeviceRoom& room);

  int64_t max_positions() const override { return max_positions_; }
  engine::SequenceId add_sequence() override { return table_.add(); }
  engine::SequenceId fork(engine::SequenceId parent) override { return table_.fork(parent); }
  engine::SequenceId copy(engine::SequenceId parent) { return table_.copy(parent); }
  void release(engine::SequenceId sequence) override { table_.release(sequence); }
  // When the pages run out (here or in decode), Error(kExhausted): the sequences of that call are
  // then good for release() alone.
  std::vector<float> prefill(engine::SequenceId sequence, std::span<const int32_t> tokens) override;
  std::vector<float> prefill_logits(engine::SequenceId sequence,
                                    std::span<const int32_t> tokens) override;
  std::vector<float> decode(std::span<const engine::SequenceId> sequences,
                            std::span<const int32_t> tokens) override;
  std::vector<int32_t> write(const engine::Writing& text, int64_t steps) override;
  // The same for a batch of texts: what each is continued with. `steps` steps without a word from
  // the host. A text's number of stop tokens is at most kMostStops. Error(kInternal) if a logit is
  // not a number.
  std::vector<std::vector<int32_t>> write_batch(std::span<const engine::Writing> texts,
                                                int64_t steps);

  const Model& model() const override { return *on_.model; }
  const policy::Policy& policy() const override { return choice_.policy; }
  int64_t length(engine::SequenceId sequence) const override { return table_.length(sequence); }
  std::vector<int64_t> slots(engine::SequenceId sequence) const override {
    return table_.slots(sequence);
  }
  int64_t cache_bytes() const override { return table_.bytes(); }
  int64_t pages() const { return table_.pages(); }  // of the cache, in use or free

 private:
  void take_in(engine::SequenceId sequence, std::span<const int32_t> chunk);
  // Logits of the last pass's rows to the end of `to`.
  void fetch_logits(int64_t first, int64_t count, std::vector<float>* to);
  // Hands a step's sequences over; returns the batch that serves it.
  int start_step(std::span<const engine::Writing> texts);
  void run_step(int batch);
  void run_prompt(int64_t tokens);  // a chunk of one
  // Runs `launches` one by one the first time, and then as what was recorded.
  void run_recorded(std::unique_ptr<kernels::cuda::Recording>& recorded,
                    const std::function<void()>& launches);
  // Runs `steps` steps and returns the tokens that they chose, [steps][texts].
  std::span<const int32_t> run_steps(int batch, int64_t texts, int64_t steps);

  DeviceModel on_;
  PolicyChoice choice_;
  int64_t chunk_, max_positions_;
  int sequences_;
  SequenceTable table_;
  DeviceDecoder decoder_;
  std::map<int, std::unique_ptr<kernels::cuda::Recording>> steps_;  // by batch
  std::unique_ptr<kernels::cuda::Recording> prompt_;                // a chunk, if it is short
  Staging staging_;
};

}  // namespace dmc::runtime

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
  int64_t free_pages() const override { return table_.free_pages(); }
  int64_t total_pages() const override { return table_.pages(); }
  int64_t most_pages(engine::SequenceId sequence, int64_t tokens, int64_t at_once) const override {
    return table_.pages_for(sequence, tokens, at_once);
  }
  int64_t pages_of(engine::SequenceId sequence) const override { return table_.pages_of(sequence); }
  std::vector<int32_t> write(const engine::Writing& text, int64_t steps) override;
  // The same for a batch of texts: what each is continued with, by at most `steps` tokens, and at
  // least one, without a word from the host; fewer than `steps` if pages run short. A text's number
  // of stop tokens is at most kMostStops. Error(kExhausted) if there are no pages for one step,
  // Error(kInternal) if a logit is not a number.
  std::vector<std::vector<int32_t>> write_batch(std::span<const engine::Writing> texts,
                                                int64_t steps);

  const Model& model() const override { return *on_.model; }
  const policy::Policy& policy() const override { return choice_.policy; }
  int64_t length(engine::SequenceId sequence) const override { return table_.length(sequence); }
  std::vector<int64_t> slots(engine::SequenceId sequence) const override {
    return table_.slots(sequence);
  }
  int64_t cache_bytes() const override { return table_.bytes(); }

 private:
  PassLimits pass_limits() const override;
  bool in_prompt(engine::SequenceId sequence) const override { return table_.in_prompt(sequence); }
  void run(const Pass& pass, float* logits) override;
  void advance(engine::SequenceId sequence, int64_t tokens) override {
    table_.advance(sequence, tokens);
  }
  void end_prompt(engine::SequenceId sequence) override;
  void end_step() override { table_.settle(); }

  // The decoding items of a pass as one step, or one of its chunks.
  void decode(std::span<const PassItem> items, std::span<const LogitRow> wanted, float* logits);
  void take_in(const PassItem& chunk, std::span<const LogitRow> wanted, int64_t first_row,
               float* logits);
  // What may be written at once, so that no page lacks; at least 1.
  int64_t steps_with_pages(std::span<const engine::Writing> texts, int64_t steps) const;
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

#include "runtime/device/device_runner.h"

#include <algorithm>
#include <bit>

#include "runtime/positions.h"

namespace dmc::runtime {
namespace {

constexpr int64_t kStepsAtOnce = 256;  // that run before the host looks at what was chosen

SequenceTableShape table_shape(const io::ModelConfig& config, const RunnerOptions& options,
                               const DeviceRoom& room, int64_t positions) {
  return {.layers = static_cast<int>(config.num_layers),
          .kv_heads = static_cast<int>(config.num_kv_heads),
          .head_dim = static_cast<int>(config.head_dim),
          .window = config.dmc ? static_cast<int>(config.dmc->pooled_tokens()) : 1,
          .slot_type = options.kv,
          .rows = room.sequences,
          .max_positions = positions,
          .pages = room.pages};
}

}  // namespace

DeviceModel upload_model(std::shared_ptr<kernels::cuda::Device> device,
                         std::shared_ptr<const Model> model) {
  auto weights = upload_weights(*device, *model);
  return {std::move(device), std::move(model), std::move(weights)};
}

DeviceRunner::DeviceRunner(const DeviceModel& on, const RunnerOptions& options,
                           const DeviceRoom& room)
    : on_(on),
      choice_(choose_policy(on.model->config, options.compression)),
      chunk_(std::max<int64_t>(1, options.chunk)),
      max_positions_(choose_positions(on.model->config, options.max_positions)),
      sequences_(room.sequences),
      table_(*on.device, table_shape(on.model->config, options, room, max_positions_)),
      decoder_(*on.device, on.model->config, *on.weights, choice_, table_,
               {chunk_, room.sequences, max_positions_}),
      staging_(*on.device) {}

void DeviceRunner::take_in(engine::SequenceId sequence, std::span<const int32_t> chunk) {
  const auto count = static_cast<int64_t>(chunk.size());
  require_room(table_.length(sequence) + count);
  decoder_.prefill(table_.row(sequence), table_.length(sequence), chunk);
  table_.advance(sequence, count);
}

void DeviceRunner::fetch_logits(int64_t first, int64_t count, std::vector<float>* to) {
  for (int64_t done = 0; done < count;) {
    const int64_t rows = std::min(count - done, decoder_.logit_rows());
    const int64_t numbers = rows * vocab_size();
    auto* const staging = staging_.reserve<float>(numbers);
    on_.device->copy_out(staging, decoder_.logits(first + done, rows),
                         numbers * static_cast<int64_t>(sizeof(float)));
    on_.device->wait();
    to->insert(to->end(), staging, staging + numbers);
    done += rows;
  }
}

std::vector<float> DeviceRunner::prefill(engine::SequenceId sequence,
                                         std::span<const int32_t> tokens) {
  DMC_CHECK(!tokens.empty());
  int64_t last = 0;
  for (const auto chunk : chunks_of(tokens, chunk_)) {
    take_in(sequence, chunk);
    last = static_cast<int64_t>(chunk.size()) - 1;
  }
  std::vector<float> logits;
  fetch_logits(last, 1, &logits);
  table_.require_no_refusal();
  return logits;
}

std::vector<float> DeviceRunner::prefill_logits(engine::SequenceId sequence,
                                                std::span<const int32_t> tokens) {
  std::vector<float> logits;
  logits.reserve(tokens.size() * static_cast<size_t>(vocab_size()));
  for (const auto chunk : chunks_of(tokens, chunk_)) {
    take_in(sequence, chunk);
    fetch_logits(0, static_cast<int64_t>(chunk.size()), &logits);
  }
  table_.require_no_refusal();
  return logits;
}

// Batches are served by the next power of two, so that few graphs serve all of them.
int DeviceRunner::start_step(std::span<const engine::SequenceId> sequences,
                             std::span<const int32_t> tokens) {
  DMC_CHECK(!sequences.empty() && sequences.size() == tokens.size());
  const auto count = static_cast<unsigned>(sequences.size());
  const int batch = std::min(static_cast<int>(std::bit_ceil(count)), sequences_);
  const auto size = static_cast<size_t>(batch);
  std::vector<int32_t> rows(size, -1), padded(size, 0), positions(size, 0);
  for (size_t i = 0; i < sequences.size(); ++i) {
    DMC_CHECK(tokens[i] >= 0 && tokens[i] < vocab_size());
    rows[i] = table_.row(sequences[i]);
    padded[i] = tokens[i];
    positions[i] = static_cast<int32_t>(table_.length(sequences[i]));
  }
  decoder_.set_step(rows, padded, positions);
  return batch;
}

// The first step of a batch runs launch by launch: libraries then load what they need, which they
// could not do while a step is recorded.
void DeviceRunner::run_step(int batch) {
  const auto known = steps_.find(batch);
  if (known != steps_.end()) return known->second->replay();
  decoder_.step(batch);
  steps_[batch] = on_.device->record([this, batch] { decoder_.step(batch); });
}

std::vector<float> DeviceRunner::decode(std::span<const engine::SequenceId> sequences,
                                        std::span<const int32_t> tokens) {
  for (engine::SequenceId sequence : sequences) {
    DMC_CHECK(table_.length(sequence) < max_positions());
  }
  run_step(start_step(sequences, tokens));
  const int64_t numbers = static_cast<int64_t>(sequences.size()) * vocab_size();
  auto* const staging = staging_.reserve<float>(numbers);
  on_.device->copy_out(staging, decoder_.step_logits(),
                       numbers * static_cast<int64_t>(sizeof(float)));
  on_.device->wait();
  table_.require_no_refusal();
  for (engine::SequenceId sequence : sequences) table_.advance(sequence, 1);
  return {staging, staging + numbers};
}

std::vector<int32_t> DeviceRunner::decode_likeliest(std::span<const engine::SequenceId> sequences,
                                                    std::span<const int32_t> tokens,
                                                    int64_t steps) {
  for (engine::SequenceId sequence : sequences) {
    DMC_CHECK(table_.length(sequence) + steps <= max_positions());
  }
  const int batch = start_step(sequences, tokens);
  const auto count = static_cast<int64_t>(sequences.size());
  std::vector<int32_t> chosen;
  for (int64_t done = 0; done < steps;) {
    const int64_t portion = std::min(steps - done, kStepsAtOnce);
    auto* const staging = staging_.reserve<int32_t>(portion * count);
    for (int64_t step = 0; step < portion; ++step) {
      run_step(batch);
      on_.device->copy_out(staging + step * count, decoder_.step_tokens(),
                           count * static_cast<int64_t>(sizeof(int32_t)));
    }
    on_.device->wait();
    table_.require_no_refusal();
    chosen.insert(chosen.end(), staging, staging + portion * count);
    done += portion;
  }
  if (std::ranges::find(chosen, -1) != chosen.end()) {
    throw internal_error("the model's logits are not numbers; its weights are damaged");
  }
  for (engine::SequenceId sequence : sequences) table_.advance(sequence, steps);
  return chosen;
}

}  // namespace dmc::runtime

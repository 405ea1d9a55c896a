#include "runtime/device/device_runner.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "runtime/positions.h"

namespace dmc::runtime {
namespace {

constexpr int64_t kStepsAtOnce = 256;  // that run before the host looks at what was chosen

// How long the policy lets a query see a token that will go; -1: none does.
int delay_of(const model::ModelConfig& config, const policy::Policy& policy, int64_t positions) {
  if (policy.delayed && !policy.drops_late()) {
    throw unavailable("device",
                      std::string(policy.name) + " does not run on a GPU yet; run it on the CPU");
  }
  return policy.drops_late() ? static_cast<int>(std::min(config.dmc->delay, positions)) : -1;
}

SequenceTableShape table_shape(const model::ModelConfig& config, const RunnerOptions& options,
                               const PolicyChoice& choice, const DeviceRoom& room,
                               int64_t positions) {
  const policy::Policy& policy = choice.policy;
  const policy::Budget budget{choice.budget, choice.budget_cr};
  return {.layers = static_cast<int>(config.num_layers),
          .kv_heads = static_cast<int>(config.num_kv_heads),
          .head_dim = static_cast<int>(config.head_dim),
          .window = config.dmc ? static_cast<int>(config.dmc->window) : 1,
          .slot_type = options.kv,
          .rows = room.sequences,
          .max_positions = positions,
          .delay = delay_of(config, policy, positions),
          .most_slots = policy.evicts() ? budget.at(positions) : 0,
          .observes = static_cast<int>(policy.observes),
          .query_floats = static_cast<int>(config.group_size() * config.head_dim),
          .pages = options.max_pages > 0 ? options.max_pages : room.pages};
}

constexpr engine::SamplingOptions kLikeliest{.temperature = 0.0};

bool ends(const engine::Writing& text, int32_t token) {
  return std::ranges::find(text.stop_ids, token) != text.stop_ids.end();
}

kernels::cuda::SamplingRow sampling_row(const engine::Writing& text) {
  constexpr double kLeastTemperature = 1e-30;  // above 0 in f32; as good as the likeliest token
  const engine::SamplingOptions& from = text.sampling;
  kernels::cuda::SamplingRow row;
  if (from.temperature > 0.0) {
    row.temperature = static_cast<float>(std::max(from.temperature, kLeastTemperature));
  }
  row.top_k =
      static_cast<int32_t>(std::min<int64_t>(from.top_k, kernels::cuda::kMostSampledTokens));
  row.top_p = from.top_p;
  row.seed = from.seed;
  for (int64_t id : text.stop_ids) row.stops[row.stop_count++] = static_cast<int32_t>(id);
  return row;
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
      chunk_(prompt_chunk(choice_, options.chunk)),
      max_positions_(choose_positions(on.model->config, options.max_positions)),
      sequences_(room.sequences),
      table_(*on.device, table_shape(on.model->config, options, choice_, room, max_positions_)),
      decoder_(*on.device, on.model->config, *on.weights, choice_, table_,
               {chunk_, room.sequences, max_positions_}),
      staging_(*on.device) {}

// Chunks come one by one.
PassLimits DeviceRunner::pass_limits() const { return {chunk_, chunk_}; }

void DeviceRunner::run(const Pass& pass, float* logits) {
  std::span<const LogitRow> wanted(pass.logits);
  // Those of the rows before `end`, which come first.
  const auto take = [&](int64_t end) {
    const auto count = std::ranges::find_if(wanted, [end](auto& row) { return row.row >= end; });
    const auto taken = wanted.first(static_cast<size_t>(count - wanted.begin()));
    wanted = wanted.subspan(taken.size());
    return taken;
  };
  auto row = static_cast<int64_t>(pass.decoding);
  if (row > 0) decode(std::span(pass.items).first(pass.decoding), take(row), logits);
  for (const PassItem& chunk : pass.chunks()) {
    const int64_t end = row + std::ssize(chunk.tokens);
    take_in(chunk, take(end), row, logits);
    row = end;
  }
}

void DeviceRunner::decode(std::span<const PassItem> items, std::span<const LogitRow> wanted,
                          float* logits) {
  std::vector<engine::Writing> texts;
  for (const PassItem& item : items) {
    texts.push_back({.sequence = item.sequence, .token = item.tokens[0], .sampling = kLikeliest});
  }
  run_step(start_step(texts));
  if (wanted.empty()) return;
  const int64_t vocab = vocab_size(), count = std::ssize(items) * vocab;
  auto* const staging = staging_.reserve<float>(count);
  on_.device->copy_out(staging, decoder_.step_logits(),
                       count * static_cast<int64_t>(sizeof(float)));
  on_.device->wait();
  for (const LogitRow& row : wanted) {
    std::copy_n(staging + row.row * vocab, vocab, logits + row.to * vocab);
  }
}

void DeviceRunner::take_in(const PassItem& chunk, std::span<const LogitRow> wanted,
                           int64_t first_row, float* logits) {
  decoder_.set_prompt(table_.row(chunk.sequence), table_.length(chunk.sequence), chunk.tokens);
  run_prompt(std::ssize(chunk.tokens));
  table_.begin_prompt(chunk.sequence);
  const int64_t vocab = vocab_size();
  while (!wanted.empty()) {  // none, the last row or all of the chunk: rows that lie together
    const auto part =
        wanted.first(std::min(wanted.size(), static_cast<size_t>(decoder_.logit_rows())));
    const int64_t numbers = std::ssize(part) * vocab;
    auto* const staging = staging_.reserve<float>(numbers);
    on_.device->copy_out(staging, decoder_.logits(part[0].row - first_row, std::ssize(part)),
                         numbers * static_cast<int64_t>(sizeof(float)));
    on_.device->wait();
    std::copy_n(staging, numbers, logits + part[0].to * vocab);
    wanted = wanted.subspan(part.size());
  }
}

void DeviceRunner::end_prompt(engine::SequenceId sequence) {
  decoder_.end_prompt(table_.row(sequence), table_.length(sequence));
  table_.end_prompt(sequence);
}

// Batches are served by the next power of two, so that few graphs serve all of them.
int DeviceRunner::start_step(std::span<const engine::Writing> texts) {
  DMC_CHECK(!texts.empty());
  const auto count = static_cast<unsigned>(texts.size());
  const int batch = std::min(static_cast<int>(std::bit_ceil(count)), sequences_);
  const auto size = static_cast<size_t>(batch);
  StepInput input{std::vector<int32_t>(size, -1), std::vector<int32_t>(size),
                  std::vector<int32_t>(size), std::vector<kernels::cuda::SamplingRow>(size)};
  for (size_t i = 0; i < texts.size(); ++i) {
    const engine::Writing& text = texts[i];
    DMC_CHECK(text.token >= 0 && text.token < vocab_size());
    input.rows[i] = table_.row(text.sequence);
    input.tokens[i] = text.token;
    input.positions[i] = static_cast<int32_t>(table_.length(text.sequence));
    input.sampling[i] = sampling_row(text);
  }
  decoder_.set_step(input);
  return batch;
}

// One by one libraries load what they need, which they could not do while they are recorded.
void DeviceRunner::run_recorded(std::unique_ptr<kernels::cuda::Recording>& recorded,
                                const std::function<void()>& launches) {
  if (recorded != nullptr) return recorded->replay();
  launches();
  recorded = on_.device->record(launches);
}

void DeviceRunner::run_step(int batch) {
  run_recorded(steps_[batch], [this, batch] { decoder_.step(batch); });
}

// Of short chunks, as a held ratio wants them, a prompt has so many that the launches would cost
// more than their work.
void DeviceRunner::run_prompt(int64_t tokens) {
  constexpr int64_t kRecorded = 64;
  if (tokens != chunk_ || chunk_ > kRecorded) return decoder_.prefill(tokens);
  run_recorded(prompt_, [this, tokens] { decoder_.prefill(tokens); });
}

std::vector<int32_t> DeviceRunner::write(const engine::Writing& text, int64_t steps) {
  const bool on_device = std::ssize(text.stop_ids) <= kernels::cuda::kMostStops &&
                         text.sampling.min_p == 0.0;  // which its sampler does not know
  if (!on_device) return Runner::write(text, steps);
  return write_batch({&text, 1}, steps)[0];
}

std::span<const int32_t> DeviceRunner::run_steps(int batch, int64_t texts, int64_t steps) {
  auto* const staging = staging_.reserve<int32_t>(steps * texts);
  for (int64_t step = 0; step < steps; ++step) {
    run_step(batch);
    on_.device->copy_out(staging + step * texts, decoder_.step_tokens(),
                         texts * static_cast<int64_t>(sizeof(int32_t)));
  }
  table_.settle();
  return {staging, static_cast<size_t>(steps * texts)};
}

int64_t DeviceRunner::steps_with_pages(std::span<const engine::Writing> texts,
                                       int64_t steps) const {
  const int64_t free = free_pages();
  for (int64_t count = steps;; count /= 2) {
    int64_t pages = 0;
    for (const engine::Writing& text : texts) pages += pages_for(text.sequence, count);
    if (pages <= free) return count;
    if (count <= 1) throw too_few_pages(pages);
  }
}

std::vector<std::vector<int32_t>> DeviceRunner::write_batch(std::span<const engine::Writing> texts,
                                                            int64_t steps) {
  for (const engine::Writing& text : texts) {
    const int64_t length = table_.length(text.sequence);
    DMC_CHECK(text.position == length + 1 && length + steps <= max_positions());
    DMC_CHECK(std::ssize(text.stop_ids) <= kernels::cuda::kMostStops);
  }
  const int64_t count = steps_with_pages(texts, std::min(steps, kStepsAtOnce));
  const auto chosen = run_steps(start_step(texts), std::ssize(texts), count);
  std::vector<std::vector<int32_t>> written(texts.size());
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::vector<int32_t>& to = written[i % texts.size()];
    const engine::Writing& text = texts[i % texts.size()];
    if (to.empty() || !ends(text, to.back())) to.push_back(chosen[i]);
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    if (std::ranges::find(written[i], -1) != written[i].end()) {
      throw data_error("the model's logits are not numbers; its weights are damaged");
    }
    table_.advance(texts[i].sequence, std::ssize(written[i]));
  }
  return written;
}

}  // namespace dmc::runtime

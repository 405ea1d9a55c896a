#include "random_model.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/slot_page.h"
#include "policy/forced.h"

namespace dmc::bench {
namespace {

using kernels::cuda::kTileSlots;
using runtime::DeviceMatrix;

constexpr int kWindow = 12;
constexpr double kShareOfMemory = 0.9;             // for the cache, of what weights leave
constexpr int64_t kOtherBytes = int64_t{1} << 30;  // activations and the kernels' workspace
constexpr int64_t kChunk = 4096;     // tokens of a prompt in a step, as engine::prefill() has them
constexpr int64_t kPageTables = 12;  // bytes of a page outside it (PageStack)

class WeightMaker {
 public:
  explicit WeightMaker(kernels::cuda::Device& device) : device_(device) {
    Rng rng(1);
    for (int64_t i = 0; i < kBlock; ++i) {
      const uint16_t bits = f32_to_bf16(static_cast<float>(0.04 * (rng.uniform() - 0.5)));
      const auto* const bytes = reinterpret_cast<const std::byte*>(&bits);
      block_.insert(block_.end(), bytes, bytes + sizeof(bits));
    }
  }

  DeviceMatrix matrix(int64_t outputs, int64_t inputs) {
    const int64_t bytes = outputs * inputs * 2, block = static_cast<int64_t>(block_.size());
    DeviceMatrix to{{device_, bytes}, outputs, inputs, DType::kBF16};
    for (int64_t at = 0; at < bytes; at += block) {
      const auto part = static_cast<size_t>(std::min(block, bytes - at));
      to.data.upload(std::span(block_).first(part), at);
    }
    bytes_ += bytes;
    return to;
  }
  runtime::DeviceNorm ones(int64_t width) {
    return {{device_, std::vector<float>(static_cast<size_t>(width), 1.0f)}, {}};
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kBlock = int64_t{1} << 22;  // numbers

  kernels::cuda::Device& device_;
  std::vector<std::byte> block_;
  int64_t bytes_ = 0;
};

int64_t streams_of(const model::ModelConfig& config) {
  return config.num_layers * config.num_kv_heads;
}

double ratio_of(const Setup& setup) { return std::max(1.0, setup.cr); }

// Pages that a sequence takes, with chance's excess over what is expected, and one more for each
// stream: a step is begun only if every one of them could go on to its next page.
int64_t pages_of(const Setup& setup) {
  const auto tokens = static_cast<double>(setup.longest);
  int64_t pages = 0;
  for (int64_t stream = 0; stream < streams_of(setup.config); ++stream) {
    const double expected = policy::forced_opening_share(stream, ratio_of(setup)) * tokens;
    const double slots = std::min(expected + 5.0 * std::sqrt(expected), tokens);
    pages += static_cast<int64_t>(slots) / kTileSlots + 2;
  }
  return pages;
}

// Bytes of a sequence beside its pages: open slots and tables.
int64_t state_bytes(const Setup& setup) {
  const int64_t window = setup.cr == kDense ? 1 : kWindow;
  const int64_t numbers =
      window + (window + 1) * 2 * setup.config.head_dim + setup.longest / kTileSlots + 4;
  return 4 * numbers * streams_of(setup.config);
}

// Pages that must be free before a chunk of a prompt, which might not merge at all.
int64_t pages_before_a_chunk(const Setup& setup) {
  return streams_of(setup.config) * (std::min(setup.longest, kChunk) / kTileSlots + 1);
}

runtime::DeviceRoom room_for(const Setup& setup, int64_t bytes_left) {
  const kernels::PageFormat page{kTileSlots, static_cast<int>(setup.config.head_dim), setup.kv};
  const int64_t pages = pages_of(setup);
  const int64_t sequence = pages * (page.bytes() + kPageTables) + state_bytes(setup);
  const int64_t chunk = pages_before_a_chunk(setup);
  const double budget = kShareOfMemory * static_cast<double>(bytes_left) -
                        static_cast<double>(kOtherBytes + chunk * page.bytes());
  const int64_t fit = static_cast<int64_t>(budget) / sequence;
  if (fit < 1) throw internal_error("not one sequence fits into the device's memory");
  const auto sequences = static_cast<int>(std::min<int64_t>(fit, setup.most_sequences));
  return {.sequences = sequences, .pages = sequences * pages + chunk};
}

}  // namespace

RandomWeights random_weights(kernels::cuda::Device& device, const model::ModelConfig& c) {
  WeightMaker maker(device);
  auto weights = std::make_shared<runtime::DeviceWeights>();
  weights->type = DType::kBF16;
  weights->embedding = maker.matrix(c.vocab_size, c.hidden_size);
  const int64_t queries = c.num_heads * c.head_dim, keys = c.num_kv_heads * c.head_dim;
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    weights->layers.push_back({maker.ones(c.hidden_size),
                               maker.ones(c.hidden_size),
                               {},
                               {},
                               {maker.matrix(queries + 2 * keys, c.hidden_size), {}},
                               {maker.matrix(c.hidden_size, queries), {}},
                               {maker.matrix(2 * c.intermediate_size, c.hidden_size), {}},
                               {maker.matrix(c.hidden_size, c.intermediate_size), {}}});
  }
  weights->final_norm = maker.ones(c.hidden_size);
  if (!c.tie_embeddings) weights->head.matrix = maker.matrix(c.vocab_size, c.hidden_size);
  return {weights, maker.bytes()};
}

std::unique_ptr<runtime::DeviceRunner> make_runner(
    const std::shared_ptr<kernels::cuda::Device>& device, const RandomWeights& weights,
    const Setup& setup, int* sequences) {
  const auto model = std::make_shared<runtime::Model>();
  model->config = setup.config;
  model->config.max_positions = setup.longest;
  // So that the state of compression is there.
  if (setup.cr != kDense) model->config.dmc = model::DmcConfig{.window = kWindow};
  runtime::RunnerOptions options{.max_positions = setup.longest, .kv = setup.kv};
  options.compression.policy = setup.cr == kDense ? "dense" : "forced";
  options.compression.forced_cr = ratio_of(setup);
  const runtime::DeviceRoom room = room_for(setup, device->bytes_left());
  *sequences = room.sequences;
  return std::make_unique<runtime::DeviceRunner>(
      runtime::DeviceModel{device, model, weights.weights}, options, room);
}

std::vector<int32_t> random_prompt(const model::ModelConfig& config, int64_t tokens) {
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  Rng rng(2);
  for (int32_t& token : prompt) {
    token = static_cast<int32_t>(rng.below(static_cast<uint64_t>(config.vocab_size)));
  }
  return prompt;
}

}  // namespace dmc::bench

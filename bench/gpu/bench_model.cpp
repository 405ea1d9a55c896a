// bench_model SHAPE [--host]: what a whole model gives through the real runtime, with random
// weights and forced ratios: the protocol of the DMC paper's figure 5. For each context N and
// ratio: a prompt of N, decoding at 1.5 N (the middle of a generation of as many), with as many
// sequences as fit at 2 N, and with fewer. One line of JSON a result, printed at once. --host: on
// the CPU in the GPU's place, to see that the program works; its times mean nothing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "base/stopwatch.h"
#include "policy/forced.h"
#include "runtime/device/device_runner.h"
#include "runtime/device/host_device.h"

namespace dmc::bench {
namespace {

using nlohmann::ordered_json;
using runtime::DeviceMatrix;

struct Shape {
  const char* name;
  int64_t layers, hidden, mlp, heads, kv_heads, vocab;
  std::vector<int64_t> contexts;
};

const Shape kShapes[] = {
    {"llama-2-7b", 32, 4096, 11008, 32, 32, 32000, {2048, 4096, 8192}},
    {"llama-2-13b", 40, 5120, 13824, 40, 40, 32000, {2048, 4096, 8192}},
    {"tiny", 2, 128, 96, 2, 2, 100, {512}},
};

constexpr int kWindow = 12;
constexpr double kRatios[] = {1.0, 2.0, 4.0, 8.0};
constexpr double kShareOfMemory = 0.9;             // for the cache, of what weights leave
constexpr int64_t kOtherBytes = int64_t{1} << 30;  // activations and the kernels' workspace
constexpr int64_t kWarmUpSteps = 8, kTimedSteps = 64;

io::ModelConfig config_of(const Shape& shape, int64_t positions, bool compresses) {
  io::ModelConfig config;
  config.vocab_size = shape.vocab;
  config.hidden_size = shape.hidden;
  config.intermediate_size = shape.mlp;
  config.num_layers = shape.layers;
  config.num_heads = shape.heads;
  config.num_kv_heads = shape.kv_heads;
  config.head_dim = shape.hidden / shape.heads;
  config.max_positions = positions;
  if (compresses) config.dmc = io::DmcConfig{.window = kWindow};  // so that its state is there
  return config;
}

// Weights in bf16, the same random block over and over.
class RandomWeights {
 public:
  explicit RandomWeights(kernels::cuda::Device& device) : device_(device) {
    Rng rng(1);
    for (int64_t i = 0; i < kBlock; ++i) {
      const uint16_t bits = f32_to_bf16(static_cast<float>(0.04 * (rng.uniform() - 0.5)));
      const auto* const bytes = reinterpret_cast<const std::byte*>(&bits);
      block_.insert(block_.end(), bytes, bytes + sizeof(bits));
    }
  }

  std::shared_ptr<const runtime::DeviceWeights> make(const io::ModelConfig& c) {
    auto weights = std::make_shared<runtime::DeviceWeights>();
    weights->type = DType::kBF16;
    weights->embedding = matrix(c.vocab_size, c.hidden_size);
    const int64_t queries = c.num_heads * c.head_dim, keys = c.num_kv_heads * c.head_dim;
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      weights->layers.push_back({ones(c.hidden_size),
                                 ones(c.hidden_size),
                                 {},
                                 {},
                                 {matrix(queries + 2 * keys, c.hidden_size), {}},
                                 {matrix(c.hidden_size, queries), {}},
                                 {matrix(2 * c.intermediate_size, c.hidden_size), {}},
                                 {matrix(c.hidden_size, c.intermediate_size), {}}});
    }
    weights->final_norm = ones(c.hidden_size);
    weights->head.matrix = matrix(c.vocab_size, c.hidden_size);
    return weights;
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kBlock = int64_t{1} << 22;  // numbers

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

  kernels::cuda::Device& device_;
  std::vector<std::byte> block_;
  int64_t bytes_ = 0;
};

struct Point {
  const Shape& shape;
  int64_t context;
  double cr;
};

// Pages that a sequence of `tokens` takes, with chance's excess over what is expected.
int64_t pages_of(const Point& point, int64_t tokens) {
  int64_t pages = 0;
  for (int64_t stream = 0; stream < point.shape.layers * point.shape.kv_heads; ++stream) {
    const double share = policy::forced_opening_share(stream, point.cr);
    const auto expected = share * static_cast<double>(tokens);
    const double slots = expected + 5.0 * std::sqrt(expected);
    pages += static_cast<int64_t>(std::min(slots, static_cast<double>(tokens))) /
                 kernels::cuda::kTileSlots +
             1;
  }
  return pages;
}

// Bytes of a sequence beside its pages: open slots and tables.
int64_t state_bytes(const Point& point, int64_t tokens) {
  const int64_t window = point.cr > 1.0 ? kWindow : 1;
  const int64_t head_dim = point.shape.hidden / point.shape.heads;
  const int64_t numbers =
      window + (window + 1) * 2 * head_dim + tokens / kernels::cuda::kTileSlots + 4;
  return 4 * numbers * point.shape.layers * point.shape.kv_heads;
}

runtime::DeviceRoom room_for(const Point& point, int64_t tokens, int64_t bytes_left) {
  const int64_t page_bytes =
      kernels::cuda::kTileSlots * 4 * point.shape.hidden / point.shape.heads + 4;
  const int64_t pages = pages_of(point, tokens);
  const int64_t sequence = pages * page_bytes + state_bytes(point, tokens);
  const double budget =
      kShareOfMemory * static_cast<double>(bytes_left) - static_cast<double>(kOtherBytes);
  const int64_t fit = static_cast<int64_t>(budget) / sequence;
  if (fit < 1) throw internal_error("not one sequence fits into the device's memory");
  const auto sequences = static_cast<int>(std::min<int64_t>(fit, 1024));
  return {.sequences = sequences, .pages = sequences * pages};
}

// A sequence of 1.5 contexts and its copies, which share nothing; *prompt_seconds: of one context.
std::vector<engine::SequenceId> fill(runtime::DeviceRunner& runner, const Point& point,
                                     int sequences, double* prompt_seconds) {
  std::vector<int32_t> prompt(static_cast<size_t>(point.context));
  Rng rng(2);
  for (int32_t& token : prompt) {
    token = static_cast<int32_t>(rng.below(static_cast<uint64_t>(point.shape.vocab)));
  }
  const engine::SequenceId warm_up = runner.add_sequence();
  runner.prefill(warm_up, prompt);
  runner.release(warm_up);
  std::vector<engine::SequenceId> ids = {runner.add_sequence()};
  const Stopwatch watch;
  runner.prefill(ids[0], prompt);
  *prompt_seconds = watch.seconds();
  runner.prefill(ids[0], std::span(prompt).first(prompt.size() / 2));
  while (static_cast<int>(ids.size()) < sequences) ids.push_back(runner.copy(ids[0]));
  return ids;
}

// Steps that choose the likeliest tokens.
void run_steps(runtime::DeviceRunner& runner, std::span<const engine::SequenceId> sequences,
               int64_t steps) {
  std::vector<engine::Writing> texts;
  for (const engine::SequenceId id : sequences) {
    texts.push_back({id, /*token=*/1, runner.length(id) + 1, {.temperature = 0.0}, {}});
  }
  runner.write_batch(texts, steps);
}

void bench_point(const runtime::DeviceModel& on, int64_t weight_bytes, const Point& point) {
  const int64_t longest = 2 * point.context;
  const runtime::DeviceRoom room = room_for(point, longest, on.device->bytes_left());
  runtime::RunnerOptions options{.max_positions = longest, .kv = DType::kBF16};
  options.compression.forced_cr = point.cr;
  if (point.cr == 1.0) options.compression.policy = "dense";
  runtime::DeviceRunner runner(on, options, room);
  double prompt_seconds = 0.0;
  const auto ids = fill(runner, point, room.sequences, &prompt_seconds);
  for (int batch : std::set<int>{1, std::min(16, room.sequences), room.sequences}) {
    const auto some = std::span(ids).first(static_cast<size_t>(batch));
    run_steps(runner, some, kWarmUpSteps);
    const Stopwatch watch;
    run_steps(runner, some, kTimedSteps);
    const double step = watch.seconds() / static_cast<double>(kTimedSteps);
    const ordered_json line = {{"name", point.shape.name},
                               {"context", point.context},
                               {"forced_cr", point.cr},
                               {"measured_cr", runner.compression_ratio(ids[0])},
                               {"batch", batch},
                               {"largest_batch", batch == room.sequences},
                               {"step_ms", 1e3 * step},
                               {"tokens_per_second", batch / step},
                               {"weights_GB/s", 1e-9 * static_cast<double>(weight_bytes) / step},
                               {"cache_GB", 1e-9 * static_cast<double>(runner.cache_bytes())},
                               {"prompt_ms", 1e3 * prompt_seconds}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }
}

void bench(const Shape& shape, const std::shared_ptr<kernels::cuda::Device>& device) {
  RandomWeights random(*device);
  const auto weights = random.make(config_of(shape, 0, false));
  for (int64_t context : shape.contexts) {
    for (double cr : kRatios) {
      const auto model = std::make_shared<runtime::Model>();
      model->config = config_of(shape, 2 * context, cr > 1.0);
      bench_point({device, model, weights}, random.bytes(), {shape, context, cr});
    }
  }
}

const Shape& find_shape(const char* name) {
  for (const Shape& shape : kShapes) {
    if (std::strcmp(shape.name, name) == 0) return shape;
  }
  throw usage_error(std::string("there is no shape ") + name +
                    "; there are llama-2-7b, llama-2-13b and tiny");
}

}  // namespace
}  // namespace dmc::bench

int main(int argc, char** argv) {
  using namespace dmc;
  try {
    if (argc < 2) throw usage_error("expected bench_model SHAPE [--host]");
    const bool host = argc > 2 && std::strcmp(argv[2], "--host") == 0;
    const bench::Shape& shape = bench::find_shape(argv[1]);
    constexpr int64_t kHostBytes = int64_t{1224} << 20;  // a few sequences beside kOtherBytes
    std::shared_ptr<kernels::cuda::Device> device;
    if (host) device = std::make_shared<runtime::HostDevice>(kHostBytes);
    bench::bench(shape, host ? device : kernels::cuda::open_cuda_device());
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_model: %s\n", error.what());
    return error.exit_code();
  }
  return 0;
}

// bench_model SHAPE [PART...] [--kv TYPE] [--host] [--small]: what a whole model gives through the
// real runtime, with random weights and forced ratios. SHAPE: a name that `dmc plan` knows, or
// "tiny". Parts (default: all):
//   throughput   for each context N and ratio: a prompt of N, decoding at 1.5 N (the middle of a
//                generation of as many), with as many sequences as fit at 2 N, and with fewer (the
//                protocol of the DMC paper's figure 5)
//   latency      the same place: the time between two tokens when the host waits for each, as a
//                server that streams does, of 1, 8, 32 and as many sequences as fit
//   ttft         the time a prompt takes until its first token can be chosen
// One line of JSON a result, printed at once. --host: on the CPU in the GPU's place, to see that
// the program works; its times mean nothing. --small: likewise short, for the emulated GPU.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/named.h"
#include "base/stopwatch.h"
#include "model/published.h"
#include "random_model.h"
#include "runtime/device/host_device.h"

namespace dmc::bench {
namespace {

using nlohmann::ordered_json;

// How much is run.
struct Effort {
  std::vector<double> ratios, prompt_ratios;
  int most_sequences;
  int64_t warm_up_steps, timed_steps, waited_steps;
  int prompt_rounds;
};
// At ratio 1 all is done that compression takes, for nothing.
const Effort kUsual = {{kDense, 2.0, 4.0, 8.0}, {kDense, 1.0, 2.0, 4.0, 8.0}, 1024, 8, 64, 200, 5};
const Effort kSmall = {{kDense, 4.0}, {kDense, 4.0}, 3, 1, 2, 2, 1};

struct Bench {
  std::string name;
  model::ModelConfig config;
  std::vector<int64_t> contexts, prompts;  // tokens
  Effort effort = kUsual;
  DType kv = DType::kBF16;
  std::shared_ptr<kernels::cuda::Device> device;
  RandomWeights weights;
};

model::ModelConfig tiny_config() {
  model::ModelConfig config;
  config.vocab_size = 100;
  config.hidden_size = 128;
  config.intermediate_size = 96;
  config.num_layers = config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 64;
  return config;
}

Bench bench_of(const std::string& name) {
  if (name == "tiny") return {name, tiny_config(), {512}, {64, 256}};
  const auto config = model::published_model(name);
  if (!config) {
    throw invalid_argument("there is no shape " + name + "; there are tiny, " +
                           model::published_names());
  }
  return {name, *config, {2048, 4096, 8192}, {512, 2048, 8192, 32768}};
}

// What every line of a part begins with.
ordered_json line_of(const Bench& bench, const char* part, double cr) {
  ordered_json line = {{"name", bench.name}, {"part", part}, {"kv", dtype_name(bench.kv)}};
  line["policy"] = cr == kDense ? "dense" : "forced";
  if (cr != kDense) line["forced_cr"] = cr;
  return line;
}

void print(const ordered_json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

// A runner and as many sequences as fit at 2 contexts: one of 1.5 and its copies, which share
// nothing.
struct Crowd {
  Crowd(const Bench& bench, int64_t context, double cr)
      : runner(make_runner(bench.device, bench.weights,
                           {bench.config, bench.kv, cr, 2 * context, bench.effort.most_sequences},
                           &most)) {
    ids = {runner->add_sequence()};
    engine::prefill(*runner, ids[0], random_prompt(bench.config, context + context / 2));
    while (static_cast<int>(ids.size()) < most) ids.push_back(runner->copy(ids[0]));
  }

  // Batches of these sizes, as far as there are as many, and of all.
  std::set<int> batches(std::initializer_list<int> sizes) const {
    std::set<int> result = {most};
    for (int size : sizes) result.insert(std::min(size, most));
    return result;
  }
  // `steps` likeliest tokens of the first `batch` sequences.
  void write(int batch, int64_t steps) const {
    while (steps > 0) {
      std::vector<engine::Writing> texts;
      for (engine::SequenceId id : std::span(ids).first(static_cast<size_t>(batch))) {
        texts.push_back({id, /*token=*/1, runner->length(id) + 1, {.temperature = 0.0}, {}});
      }
      steps -= std::ssize(runner->write_batch(texts, steps)[0]);
    }
  }

  int most = 0;
  std::unique_ptr<runtime::DeviceRunner> runner;
  std::vector<engine::SequenceId> ids;
};

// The number below which `share` of the sorted numbers lie.
double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5)];
}

void bench_throughput(const Bench& bench) {
  for (int64_t context : bench.contexts) {
    for (double cr : bench.effort.ratios) {
      const Crowd crowd(bench, context, cr);
      for (int batch : crowd.batches({1, 16})) {
        crowd.write(batch, bench.effort.warm_up_steps);
        const Stopwatch watch;
        crowd.write(batch, bench.effort.timed_steps);
        const double step = watch.seconds() / static_cast<double>(bench.effort.timed_steps);
        ordered_json line = line_of(bench, "throughput", cr);
        line["context"] = context;
        line["measured_cr"] = crowd.runner->compression_ratio(crowd.ids[0]);
        line["batch"] = batch;
        line["largest_batch"] = batch == crowd.most;
        line["step_ms"] = 1e3 * step;
        line["tokens_per_second"] = batch / step;
        line["weights_GB/s"] = 1e-9 * static_cast<double>(bench.weights.bytes) / step;
        line["cache_GB"] = 1e-9 * static_cast<double>(crowd.runner->cache_bytes());
        print(line);
      }
    }
  }
}

// Seconds between tokens, sorted: the host waits for the tokens of each step before it asks for the
// next one.
std::vector<double> waited_steps(const Crowd& crowd, int batch, int64_t warm_ups, int64_t steps) {
  std::vector<double> seconds;
  for (int64_t step = 0; step < warm_ups + steps; ++step) {
    const Stopwatch watch;
    crowd.write(batch, 1);
    if (step >= warm_ups) seconds.push_back(watch.seconds());
  }
  std::ranges::sort(seconds);
  return seconds;
}

void bench_latency(const Bench& bench) {
  const int64_t context = bench.contexts[bench.contexts.size() / 2];
  const Effort& effort = bench.effort;
  for (double cr : effort.ratios) {
    const Crowd crowd(bench, context, cr);
    const std::set<int> batches = crowd.batches({1, 8, 32});
    // All go on from 1.5 contexts, and sequence 0 is in each batch.
    const int64_t room = context / 2 / static_cast<int64_t>(batches.size()) - effort.warm_up_steps;
    for (int batch : batches) {
      const auto seconds =
          waited_steps(crowd, batch, effort.warm_up_steps, std::min(effort.waited_steps, room));
      ordered_json line = line_of(bench, "latency", cr);
      line["context"] = context;
      line["batch"] = batch;
      line["largest_batch"] = batch == crowd.most;
      line["steps"] = seconds.size();
      line["p50_ms"] = 1e3 * quantile(seconds, 0.5);
      line["p95_ms"] = 1e3 * quantile(seconds, 0.95);
      line["p99_ms"] = 1e3 * quantile(seconds, 0.99);
      print(line);
    }
  }
}

void bench_ttft(const Bench& bench) {
  for (int64_t length : bench.prompts) {
    const std::vector<int32_t> prompt = random_prompt(bench.config, length);
    for (double cr : bench.effort.prompt_ratios) {
      int sequences = 0;
      const auto runner = make_runner(bench.device, bench.weights,
                                      {bench.config, bench.kv, cr, length, 1}, &sequences);
      std::vector<double> seconds;
      double measured_cr = 1.0;
      for (int round = 0; round <= bench.effort.prompt_rounds; ++round) {  // the first one warms up
        const engine::SequenceId id = runner->add_sequence();
        const Stopwatch watch;
        engine::prefill(*runner, id, prompt);
        if (round > 0) seconds.push_back(watch.seconds());
        measured_cr = runner->compression_ratio(id);
        runner->release(id);
      }
      std::ranges::sort(seconds);
      ordered_json line = line_of(bench, "ttft", cr);
      line["prompt"] = length;
      line["measured_cr"] = measured_cr;
      line["ttft_ms"] = 1e3 * quantile(seconds, 0.5);
      line["slowest_ms"] = 1e3 * seconds.back();
      print(line);
    }
  }
}

struct Part {
  std::string_view name, summary;
  void (*run)(const Bench&);
};
constexpr Part kParts[] = {
    {"throughput", "tokens a second with as many sequences as fit", bench_throughput},
    {"latency", "the time between two tokens", bench_latency},
    {"ttft", "the time until the first", bench_ttft}};

struct SlotType {
  std::string_view name;
  DType type;
};
constexpr SlotType kSlotTypes[] = {
    {"bf16", DType::kBF16}, {"f16", DType::kF16}, {"int8", DType::kI8}, {"fp8", DType::kF8E4M3}};

struct Arguments {
  std::string shape;
  std::vector<const Part*> parts;
  DType kv = DType::kBF16;
  bool host = false, small = false;
};

Arguments parse(std::span<char*> words) {
  Arguments result;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i];
    if (word == "--host") {
      result.host = true;
    } else if (word == "--small") {
      result.small = true;
    } else if (word == "--kv") {
      const SlotType* const slot =
          i + 1 < words.size() ? find_named(kSlotTypes, words[++i]) : nullptr;
      if (slot == nullptr) throw invalid_argument("kv", "expected bf16, f16, int8 or fp8");
      result.kv = slot->type;
    } else if (result.shape.empty()) {
      result.shape = word;
    } else if (const Part* const part = find_named(kParts, word)) {
      result.parts.push_back(part);
    } else {
      throw invalid_argument("there is no part " + word + "; there are " + names_explained(kParts));
    }
  }
  if (result.shape.empty())
    throw invalid_argument("expected bench_model SHAPE [PART...] [--kv TYPE] [--host] [--small]");
  if (result.parts.empty()) {
    for (const Part& part : kParts) result.parts.push_back(&part);
  }
  return result;
}

void run(const Arguments& arguments) {
  constexpr int64_t kHostBytes = int64_t{1224} << 20;  // a few sequences of the tiny shape
  Bench bench = bench_of(arguments.shape);
  bench.kv = arguments.kv;
  if (arguments.small) {
    bench.effort = kSmall;
    bench.contexts = {32};
    bench.prompts = {40};
  }
  if (arguments.host) {
    bench.device = std::make_shared<runtime::HostDevice>(kHostBytes);
  } else {
    bench.device = kernels::cuda::open_cuda_device();
  }
  bench.weights = random_weights(*bench.device, bench.config);
  for (const Part* part : arguments.parts) part->run(bench);
}

}  // namespace
}  // namespace dmc::bench

int main(int argc, char** argv) {
  try {
    dmc::bench::run(dmc::bench::parse(std::span(argv + 1, static_cast<size_t>(argc - 1))));
  } catch (const dmc::Error& error) {
    std::fprintf(stderr, "bench_model: %s\n", error.what());
    return dmc::exit_code(error.code());
  }
  return 0;
}

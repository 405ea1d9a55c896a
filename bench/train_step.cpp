// What compression costs a training step: the same model's dense, DMC and DMS steps, in turn, in
// one run. A line of JSON for each.
//
//   bench_train_step MODEL [--layers N] [--device cuda] [--precision bf16] [--batch N] ...
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <c10/util/Exception.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/stopwatch.h"
#include "model/published.h"
#include "ops/threads.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/placement.h"
#include "train/stage.h"

namespace dmc {
namespace {

struct Bench {
  std::string model;  // a folder, or the name of a shape
  int64_t layers = 0;
  int64_t rounds = 9;
  int threads = 0;
  train::TrainOptions options;
};

struct Contender {
  const char* name;    // of the method, or "dense"
  int64_t window = 0;  // of the method
  std::unique_ptr<train::TrainAttention> attention = nullptr;
  std::vector<double> seconds = {};
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

nn::Decoder make_model(const Bench& bench) {
  if (std::filesystem::is_directory(bench.model)) return nn::Decoder::load(bench.model);
  std::optional<model::ModelConfig> config = model::published_model(bench.model);
  if (!config) {
    throw invalid_argument(bench.model + " is neither a folder nor a shape; there are " +
                           model::published_names());
  }
  if (bench.layers > 0) config->num_layers = bench.layers;
  return nn::Decoder::create(*config, /*seed=*/1);
}

// One whole step; reading the loss at its end waits for the device.
double step(const nn::Decoder& model, train::AdamW& optimizer, Contender& contender,
            const at::Tensor& tokens_BT, int64_t number) {
  const Stopwatch watch;
  const int64_t length = tokens_BT.size(1) - 1;
  contender.attention->begin_step({0, 1, number, 1, 1.0});
  const at::Tensor hidden =
      model.hidden(tokens_BT.narrow(1, 0, length), *contender.attention).flatten(0, 1);
  const train::TokenLoss loss =
      train::head_backward(model, hidden, tokens_BT.narrow(1, 1, length).reshape({-1}), {});
  const at::Tensor extra = contender.attention->extra_loss();
  at::Tensor total = (hidden * loss.hidden_grad_ND).sum();
  if (extra.defined()) total = total + extra;
  total.backward();
  optimizer.step(/*learning_rate=*/0.0);  // the work of an update, without its effect
  loss.language_model.item<double>();
  return watch.seconds();
}

void report(const Bench& bench, const Contender& contender, double dense_seconds) {
  const train::TrainOptions& o = bench.options;
  const double seconds = median(contender.seconds);
  const auto placement = train::placement_of(o);
  std::printf("%s\n", nlohmann::ordered_json{{"model", bench.model},
                                             {"layers", bench.layers},
                                             {"device", o.device},
                                             {"precision", placement.products ? "bf16" : "f32"},
                                             {"batch", o.batch},
                                             {"length", o.length},
                                             {"attention", contender.name},
                                             {"window", contender.window},
                                             {"tokens_per_second",
                                              static_cast<double>(o.batch * o.length) / seconds},
                                             {"time_beside_dense", seconds / dense_seconds}}
                          .dump()
                          .c_str());
  std::fflush(stdout);
}

std::vector<Contender> contenders_for(const model::ModelConfig& config,
                                      train::TrainOptions options) {
  std::vector<Contender> contenders;
  contenders.push_back({"dense"});
  contenders.push_back({"dmc", 12});
  contenders.push_back({"dms", options.length / 8});
  contenders.push_back({"dmc-delayed", options.length / 8});
  for (Contender& c : contenders) {
    const bool dense = std::string_view(c.name) == "dense";
    if (!dense) options.retrofit.method = c.name;
    options.retrofit.window = 12;
    options.retrofit.delay = std::string_view(c.name) == "dmc" ? 0 : c.window;
    c.attention = train::find_stage(dense ? "dense" : "finetune")->attention(config, options);
  }
  return contenders;
}

void run(Bench& bench) {
  train::TrainOptions& options = bench.options;
  options.weight_decay = 0.0;
  options.stages = {{train::find_stage("finetune"), 1}};
  options.retrofit.window = 12;
  train::require_device(options);
  ops::set_threads(bench.threads);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());

  nn::Decoder model = make_model(bench);
  bench.layers = model.config().num_layers;
  model.place(train::placement_of(options));
  for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  train::AdamW optimizer(model.parameters(), options);
  const at::Tensor tokens =
      at::randint(model.config().vocab_size, {options.batch, options.length + 1},
                  at::TensorOptions(train::device_of(options)).dtype(at::kLong));
  std::vector<Contender> contenders = contenders_for(model.config(), options);
  for (int64_t round = -1; round < bench.rounds; ++round) {  // the first one warms up
    for (Contender& c : contenders) {
      const double seconds = step(model, optimizer, c, tokens, std::max<int64_t>(round, 0));
      if (round >= 0) c.seconds.push_back(seconds);
    }
  }
  for (const Contender& c : contenders) report(bench, c, median(contenders.front().seconds));
}

}  // namespace
}  // namespace dmc

int main(int argc, char** argv) {
  dmc::Bench bench;
  bench.options.batch = 2;
  CLI::App app("Times of training steps, dense and with decisions", "bench_train_step");
  app.add_option("model", bench.model, "a folder, or a shape that `dmc plan` knows")->required();
  app.add_option("--layers", bench.layers, "of a shape: so many, instead of all");
  app.add_option("--device", bench.options.device)->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--precision", bench.options.precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--batch", bench.options.batch)->check(CLI::PositiveNumber);
  app.add_option("--length", bench.options.length)->check(CLI::Range(16, 1 << 20));
  app.add_option("--rounds", bench.rounds)->check(CLI::PositiveNumber);
  app.add_option("--threads", bench.threads);
  CLI11_PARSE(app, argc, argv);
  try {
    dmc::run(bench);
    return 0;
  } catch (const c10::OutOfMemoryError&) {
    std::fprintf(stderr, "bench_train_step: the GPU's memory is too small; give fewer --layers\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_train_step: %s\n", error.what());
  }
  return 1;
}
